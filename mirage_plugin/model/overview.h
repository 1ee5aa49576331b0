/* What a frame's readings are told by those of its overview: `told_by_overview` in mirage_kernels/overview.py. There
 * stands why; here is only how.
 */
#ifndef MIRAGE_OVERVIEW_H
#define MIRAGE_OVERVIEW_H
#include "shade.h"

/* Of a reading the numbers from TOLD to TOLD_END; kept behind its colour and its share, and filled up with zeros. */
enum { TOLD = 3, TOLD_END = 22, SAID = 20, KEPT = 4 + SAID };
static const float LIKE = 0.01f;

struct overview {
    const float *readings; /* [h, w, BINS, KEPT] */
    int h, w;
    float down, across, believed;
};

static size_t overview_floats(int h, int w) { return (size_t)h * (size_t)w * BINS * KEPT; }

/* Colours of readings `from` [WORDS] in v, one after another: twelve of at most LANES or more. */
static void colours_of(const float *from, float colours[BINS * 3])
{
    float x[16] = {0};
    for (int b = 0; b < BINS; b++) memcpy(x + 3 * b, from + b * SURFACE, 3 * sizeof(float));
    for (int k = 0; k < 16; k += LANES) store(x + k, 2.0f / (1.0f + exponential(-load(x + k))) - 1.0f);
    memcpy(colours, x, BINS * 3 * sizeof(float));
}

/* `words` [h, w, WORDS] as `tell` reads them. */
static void prepare_overview(struct overview *o, const float *words, float *readings)
{
    for (ptrdiff_t cell = 0; cell < (ptrdiff_t)o->h * o->w; cell++) {
        const float *from = words + cell * WORDS, *shares = from + BINS * SURFACE;
        float *to = readings + cell * BINS * KEPT, colours[BINS * 3], x[LANES > BINS ? LANES : BINS] = {0}, total = 0.0f;
        colours_of(from, colours);
        float most = shares[0];
        for (int b = 1; b < BINS; b++) most = shares[b] > most ? shares[b] : most;
        for (int b = 0; b < BINS; b++) x[b] = shares[b] - most;
        store(x, exponential(load(x)));
        for (int b = 0; b < BINS; b++) total += x[b];
        for (int b = 0; b < BINS; b++, to += KEPT) {
            memcpy(to, colours + 3 * b, 3 * sizeof(float));
            to[3] = x[b] / total;
            memcpy(to + 4, from + b * SURFACE + TOLD, (TOLD_END - TOLD) * sizeof(float));
            to[4 + TOLD_END - TOLD] = 0.0f;
        }
    }
    o->readings = readings;
}

/* The two of `cells` around the middle of cell `i`, and how much of the second it takes. */
static inline float sides_of(int i, float step, int cells, int *before, int *after)
{
    float at = ((float)i + 0.5f) * step - 0.5f;
    at = at < 0.0f ? 0.0f : at > (float)(cells - 1) ? (float)(cells - 1) : at;
    *before = (int)at;
    *after = *before + 1 < cells ? *before + 1 : *before;
    return at - (float)*before;
}

/* Tell the words of cell (y, x), [WORDS]. */
static void tell(const struct overview *o, int y, int x, float *words)
{
    int rows[2], columns[2];
    const float below = sides_of(y, o->down, o->h, rows, rows + 1);
    const float right = sides_of(x, o->across, o->w, columns, columns + 1);
    const float *there[4 * BINS];
    float place[4 * BINS], colours[BINS * 3];
    for (int corner = 0; corner < 4; corner++) {
        const float part = (corner & 2 ? below : 1.0f - below) * (corner & 1 ? right : 1.0f - right);
        const float *cell = o->readings + ((ptrdiff_t)rows[corner >> 1] * o->w + columns[corner & 1]) * BINS * KEPT;
        for (int b = 0; b < BINS; b++) {
            there[corner * BINS + b] = cell + b * KEPT;
            place[corner * BINS + b] = part * cell[b * KEPT + 3];
        }
    }
    colours_of(words, colours);
    for (int b = 0; b < BINS; b++) {
        const float *colour = colours + 3 * b;
        float said[SAID] = {0}, total = 0.0f, *own = words + b * SURFACE + TOLD;
        for (int i = 0; i < 4 * BINS; i++) {
            const float red = colour[0] - there[i][0], green = colour[1] - there[i][1], blue = colour[2] - there[i][2];
            const float unlike = 1.0f + (red * red + green * green + blue * blue) / LIKE;
            const float count = place[i] / (unlike * unlike);
            total += count;
            for (int k = 0; k < SAID; k++) said[k] += count * there[i][4 + k];
        }
        const float part = o->believed / total;
        for (int k = 0; k < TOLD_END - TOLD; k++) own[k] += said[k] * part - o->believed * own[k];
    }
}

#endif
