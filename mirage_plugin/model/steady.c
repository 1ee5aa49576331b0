/* What a cell is changed by goes on along the motion: `steadied` of steady.py, cell by cell. There stands why; here is
 * only how.
 */
#include "crew.h"
#include <math.h>
#include <stddef.h>

enum { BINS = 4, SETTLED = 7, PIXELS = 64, SEEN = 16 };
static const float SHARE = 0.75f, ALIKE = 0.08f, STRANGE = 0.35f, KNOWN = 0.5f, ABSURD = 4.0f, CELL = 8.0f;

/* A place between entries 0 and last: the entry before it, and how far it is on the way to the next. */
static int place(float at, int last, float *part)
{
    const float inside = at < 0.0f ? 0.0f : at > (float)last ? (float)last : at;
    const int low = (int)inside < last ? (int)inside : last > 0 ? last - 1 : 0;
    *part = last > 0 ? inside - (float)low : 0.0f;
    return low;
}

/* What was kept where cell i was, all zero where that is not known. */
static void carried(int i, int rows, int columns, const float *motion, const float *settled, float *before)
{
    const float x = (float)(i % columns) + motion[i] / CELL;
    const float y = (float)(i / columns) + motion[rows * columns + i] / CELL;
    for (int k = 0; k < SETTLED; k++) before[k] = 0.0f;
    /* Neither is true of a NaN. */
    if (!(y > -0.75f && y < (float)rows - 0.25f && x > -0.75f && x < (float)columns - 0.25f)) return;
    float down, across;
    const int top = place(y, rows - 1, &down), left = place(x, columns - 1, &across);
    const int below = top + 1 < rows ? top + 1 : top, right = left + 1 < columns ? left + 1 : left;
    const float *corner[4] = {
        settled + (long)(top * columns + left) * SETTLED, settled + (long)(top * columns + right) * SETTLED,
        settled + (long)(below * columns + left) * SETTLED, settled + (long)(below * columns + right) * SETTLED,
    };
    const float part[4] = {(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across};
    for (int q = 0; q < 4; q++)
        for (int k = 0; k < SETTLED; k++) before[k] += part[q] * corner[q][k];
}

/* How far a cell of colour `now` is what was kept `before`; 0 where either is no number. */
static float alike(const float *now, const float *before)
{
    float apart = 0.0f;
    for (int c = 0; c < 3; c++) apart += (now[c] - before[3 + c]) * (now[c] - before[3 + c]);
    return apart >= 0.0f ? before[6] * expf(apart / (-6.0f * ALIKE * ALIKE)) : 0.0f;
}

struct frame {
    int rows, columns;
    const float *motion;
    const uint8_t *cells;
    const float *detail, *anchors, *settled;
    float *matrices, *kept;
};

/* The colours of a row of cells, into what is kept; `told` is how much of it is alike and known. */
static void see_row(const struct frame *f, int row, float told[2])
{
    float before[SETTLED];
    told[0] = told[1] = 0.0f;
    for (int i = row * f->columns; i < (row + 1) * f->columns; i++) {
        const uint8_t *pixels = f->cells + (ptrdiff_t)i * PIXELS * 3;
        float *now = f->kept + (ptrdiff_t)i * SETTLED;
        int sums[3] = {0, 0, 0};
        for (int y = 0; y < 8; y += 2)
            for (int x = 0; x < 8; x += 2)
                for (int c = 0; c < 3; c++) sums[c] += pixels[3 * (8 * y + x) + c];
        for (int c = 0; c < 3; c++) now[3 + c] = (float)sums[c] * (2.0f / (255.0f * SEEN)) - 1.0f;
        carried(i, f->rows, f->columns, f->motion, f->settled, before);
        told[0] += alike(now + 3, before);
        told[1] += before[6];
    }
}

/* What a row of cells is changed by, drawn towards what it was where that is `believed`. */
static void draw_row(const struct frame *f, int row, float believed)
{
    float before[SETTLED];
    for (int i = row * f->columns; i < (row + 1) * f->columns; i++) {
        const float *fine = f->detail + (ptrdiff_t)i * PIXELS * 3, *seen = f->anchors + (ptrdiff_t)i * BINS * 4;
        float *map = f->matrices + (ptrdiff_t)i * BINS * 12, *now = f->kept + (ptrdiff_t)i * SETTLED;
        float change[3] = {0.0f, 0.0f, 0.0f};
        for (int p = 0; p < PIXELS; p++)
            for (int c = 0; c < 3; c++) change[c] += fine[3 * p + c];
        for (int c = 0; c < 3; c++) {
            change[c] /= (float)PIXELS;
            for (int b = 0; b < BINS; b++) {
                const float *line = map + 12 * b + 4 * c, *a = seen + 4 * b;
                change[c] += a[3] * (line[0] * a[0] + line[1] * a[1] + line[2] * a[2] + line[3]);
            }
        }
        carried(i, f->rows, f->columns, f->motion, f->settled, before);
        const float share = believed * alike(now + 3, before);
        for (int c = 0; c < 3; c++) {
            const float drawn = share * (before[c] - change[c]);
            const float moved = fabsf(drawn) < ABSURD ? drawn : 0.0f; /* a NaN is not */
            for (int b = 0; b < BINS; b++) map[12 * b + 4 * c + 3] += moved;
            now[c] = change[c] + moved;
        }
        now[6] = 1.0f;
    }
}

/* `told` [rows, 2] is worked in. Threads share rows, in two phases (crew.h); one that comes late reads `told` and nothing
 * else. */
void mirage_steady(struct phase *phases, int me, int threads, int rows, int columns, const float *motion,
                   const uint8_t *cells, const float *detail, const float *anchors, const float *settled, float *matrices,
                   float *kept, float *told)
{
    const struct frame frame = {rows, columns, motion, cells, detail, anchors, settled, matrices, kept};
    struct crew crew = {phases, me, threads};
    for (int row; (row = take(&crew, rows)) >= 0; done(&crew)) see_row(&frame, row, told + 2 * row);
    together(&crew, rows);
    float same = 0.0f, known = 0.0f;
    for (int row = 0; row < rows; row++) {
        same += told[2 * row];
        known += told[2 * row + 1];
    }
    const float sure = (same / (known > 1.0f ? known : 1.0f) - STRANGE) / (KNOWN - STRANGE);
    const float believed = SHARE * (sure < 0.0f ? 0.0f : sure < 1.0f ? sure : 1.0f);
    for (int row; (row = take(&crew, rows)) >= 0; done(&crew)) draw_row(&frame, row, believed);
    together(&crew, rows);
}
