/* What a frame's readings are told by those of its overview: `agreed` and `told_by_overview` in
 * mirage_kernels/overview.py, and `remembered`. There stands why; here is only how.
 */
#ifndef MIRAGE_OVERVIEW_H
#define MIRAGE_OVERVIEW_H
#include "crew.h"
#include "shade.h"

/* Of a reading the numbers from TOLD to TOLD_END, filled up to SAID, which are whole vectors; PAIRS of readings of two cells. */
enum { TOLD = 3, TOLD_END = 22, SAID = (TOLD_END - TOLD + LANES - 1) / LANES * LANES, PAIRS = BINS * BINS };
static const float LIKE = 0.01f, REMEMBERED = 3.0f, LEAST_SHARE = 1e-6f;

/* The readings of a cell: colours in v and shares, written as often as another cell has readings. */
struct seen {
    float colour[3][PAIRS], share[PAIRS], said[BINS][SAID];
};

struct overview {
    const struct seen *cells; /* [h, w] */
    int h, w;
    float down, across, believed;
};

/* Colours of a cell's readings `from` [WORDS] in v: red, green and blue of all of them. */
static void colours_of(const float *from, float colours[3][BINS])
{
    float x[16] = {0};
    for (int b = 0; b < BINS; b++)
        for (int c = 0; c < 3; c++) x[c * BINS + b] = from[b * SURFACE + c];
    for (int k = 0; k < 16; k += LANES) store(x + k, 2.0f / (1.0f + exponential(-load(x + k))) - 1.0f);
    memcpy(colours, x, sizeof(float) * 3 * BINS);
}

/* `words` [cells, WORDS] as `heed` reads them. */
static void see_words(const float *words, int cells, struct seen *out)
{
    for (ptrdiff_t cell = 0; cell < cells; cell++) {
        const float *from = words + cell * WORDS, *shares = from + BINS * SURFACE;
        struct seen *to = out + cell;
        float colours[3][BINS], x[16] = {0}, total = 0.0f, most = shares[0];
        colours_of(from, colours);
        for (int b = 1; b < BINS; b++) most = shares[b] > most ? shares[b] : most;
        for (int b = 0; b < BINS; b++) x[b] = shares[b] - most;
        for (int k = 0; k < BINS; k += LANES) store(x + k, exponential(load(x + k)));
        for (int b = 0; b < BINS; b++) total += x[b];
        for (int i = 0; i < PAIRS; i++) {
            for (int c = 0; c < 3; c++) to->colour[c][i] = colours[c][i % BINS];
            to->share[i] = x[i % BINS] / total;
        }
        memset(to->said, 0, sizeof to->said);
        for (int b = 0; b < BINS; b++)
            memcpy(to->said[b], from + b * SURFACE + TOLD, sizeof(float) * (TOLD_END - TOLD));
    }
}

/* Readings of `colour` heed those of another cell: what they say, `place` times as much as their colours are alike, is
 * added to `said`, and how much that is to `total`. */
static inline void heed(const float colour[3][PAIRS], const struct seen *there, float place, float said[BINS][SAID],
                        float total[BINS])
{
    float count[PAIRS];
    for (int i = 0; i < PAIRS; i += LANES) {
        const vec red = load(colour[0] + i) - load(there->colour[0] + i);
        const vec green = load(colour[1] + i) - load(there->colour[1] + i);
        const vec blue = load(colour[2] + i) - load(there->colour[2] + i);
        const vec unlike = all(1.0f) + (red * red + green * green + blue * blue) * all(1.0f / LIKE);
        store(count + i, all(place) * load(there->share + i) * reciprocal(unlike * unlike));
    }
    for (int b = 0; b < BINS; b++) {
        for (int other = 0; other < BINS; other++) total[b] += count[b * BINS + other];
        for (int k = 0; k < SAID; k += LANES) {
            vec sum = load(said[b] + k);
            for (int other = 0; other < BINS; other++)
                ADD_PRODUCT(sum, load(there->said[other] + k), all(count[b * BINS + other]));
            store(said[b] + k, sum);
        }
    }
}

/* Colours of a cell's own readings, each against all of another cell. */
static inline void against(const float colours[3][BINS], float out[3][PAIRS])
{
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < PAIRS; i++) out[c][i] = colours[c][i / BINS];
}

/* What every cell's readings and those of 5x5 cells, `step` apart, that are of their colours say: into `out`. */
static void agree_once(struct crew *crew, const struct seen *cells, struct seen *out, int h, int w, int step)
{
    for (int y; (y = take(crew, h)) >= 0; done(crew))
        for (int x = 0; x < w; x++) {
            const struct seen *here = cells + (ptrdiff_t)y * w + x;
            struct seen *to = out + (ptrdiff_t)y * w + x;
            float colours[3][BINS], own[3][PAIRS], said[BINS][SAID] = {{0}}, total[BINS] = {0};
            for (int c = 0; c < 3; c++) memcpy(colours[c], here->colour[c], sizeof colours[c]);
            against(colours, own);
            for (int dy = -2; dy <= 2; dy++) {
                const int row = y + dy * step;
                if (row < 0 || row >= h) continue;
                for (int dx = -2; dx <= 2; dx++) {
                    const int column = x + dx * step;
                    if (column < 0 || column >= w) continue;
                    const float tent = (float)((3 - (dy < 0 ? -dy : dy)) * (3 - (dx < 0 ? -dx : dx))) / 9.0f;
                    heed(own, cells + (ptrdiff_t)row * w + column, tent, said, total);
                }
            }
            memcpy(to, here, offsetof(struct seen, said));
            for (int b = 0; b < BINS; b++)
                for (int k = 0; k < SAID; k++) to->said[b][k] = said[b][k] / total[b];
        }
    together(crew, h);
}

/* See `words` [h, w, WORDS]; where they are to agree (`AGREED`), what cells of one colour say is of one mind then.
 * `between` is as large as `cells`. */
static void look(struct crew *crew, const float *words, int h, int w, int to_agree, struct seen *cells,
                 struct seen *between)
{
    for (int y; (y = take(crew, h)) >= 0; done(crew)) see_words(words + (ptrdiff_t)y * w * WORDS, w, cells + (ptrdiff_t)y * w);
    together(crew, h);
    if (!to_agree) return;
    agree_once(crew, cells, between, h, w, 1);
    agree_once(crew, between, cells, h, w, 2);
}

/* The two of `cells` around a place among them, and how much of the second it takes. */
static inline float sides_of(float at, int cells, int *before, int *after)
{
    at = at < 0.0f ? 0.0f : at > (float)(cells - 1) ? (float)(cells - 1) : at;
    *before = (int)at;
    *after = *before + 1 < cells ? *before + 1 : *before;
    return at - (float)*before;
}

/* Tell the words of cell (y, x), [WORDS]. */
static void tell(const struct overview *o, int y, int x, float *words)
{
    int rows[2], columns[2];
    const float below = sides_of(((float)y + 0.5f) * o->down - 0.5f, o->h, rows, rows + 1);
    const float right = sides_of(((float)x + 0.5f) * o->across - 0.5f, o->w, columns, columns + 1);
    float colours[3][BINS], own[3][PAIRS], said[BINS][SAID] = {{0}}, total[BINS] = {0};
    colours_of(words, colours);
    against(colours, own);
    for (int corner = 0; corner < 4; corner++) {
        const float place = (corner & 2 ? below : 1.0f - below) * (corner & 1 ? right : 1.0f - right);
        heed(own, o->cells + (ptrdiff_t)rows[corner >> 1] * o->w + columns[corner & 1], place, said, total);
    }
    for (int b = 0; b < BINS; b++) {
        float *mine = words + b * SURFACE + TOLD;
        const float part = o->believed / total[b];
        for (int k = 0; k < TOLD_END - TOLD; k++) mine[k] += said[b][k] * part - o->believed * mine[k];
    }
}

/* `remembered` of a row: what readings of `words` [h, w, WORDS] say heeds those of `before` where they come from;
 * `motion` [2, h, w] cells. */
static void remember(int y, int h, int w, float *words, const float *before, const float *motion)
{
    const ptrdiff_t cells = (ptrdiff_t)h * w;
    for (int x = 0; x < w; x++) {
        const ptrdiff_t cell = (ptrdiff_t)y * w + x;
        const float across = (float)x + motion[cell], down = (float)y + motion[cells + cell];
        /* NaN is not. */
        if (!(across >= -0.5f && across <= (float)w - 0.5f && down >= -0.5f && down <= (float)h - 0.5f)) continue;
        int rows[2], columns[2];
        const float below = sides_of(down, h, rows, rows + 1), right = sides_of(across, w, columns, columns + 1);
        struct seen here, there;
        float colours[3][BINS], own[3][PAIRS], said[BINS][SAID], total[BINS];
        see_words(words + cell * WORDS, 1, &here);
        for (int c = 0; c < 3; c++) memcpy(colours[c], here.colour[c], sizeof colours[c]);
        against(colours, own);
        for (int b = 0; b < BINS; b++) {
            total[b] = here.share[b] > LEAST_SHARE ? here.share[b] : LEAST_SHARE;
            for (int k = 0; k < SAID; k++) said[b][k] = total[b] * here.said[b][k];
        }
        for (int corner = 0; corner < 4; corner++) {
            const float place = (corner & 2 ? below : 1.0f - below) * (corner & 1 ? right : 1.0f - right);
            see_words(before + ((ptrdiff_t)rows[corner >> 1] * w + columns[corner & 1]) * WORDS, 1, &there);
            heed(own, &there, REMEMBERED * place, said, total);
        }
        for (int b = 0; b < BINS; b++)
            for (int k = 0; k < TOLD_END - TOLD; k++)
                words[cell * WORDS + b * SURFACE + TOLD + k] = said[b][k] / total[b];
    }
}

#endif
