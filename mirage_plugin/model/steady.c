/* What a cell is changed by goes on along the motion: `steadied` of steady.py, cell by cell. There stands why; here is
 * only how.
 */
#include <math.h>
#include <stdint.h>

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

void mirage_steady(int rows, int columns, const float *motion, const uint8_t *cells, const float *detail,
                   const float *anchors, const float *settled, float *matrices, float *kept)
{
    const int count = rows * columns;
    float before[SETTLED], same = 0.0f, known = 0.0f;
    for (int i = 0; i < count; i++) {
        const uint8_t *pixels = cells + (long)i * PIXELS * 3;
        float *now = kept + (long)i * SETTLED;
        int sums[3] = {0, 0, 0};
        for (int row = 0; row < 8; row += 2)
            for (int column = 0; column < 8; column += 2)
                for (int c = 0; c < 3; c++) sums[c] += pixels[3 * (8 * row + column) + c];
        for (int c = 0; c < 3; c++) now[3 + c] = (float)sums[c] * (2.0f / (255.0f * SEEN)) - 1.0f;
        carried(i, rows, columns, motion, settled, before);
        same += alike(now + 3, before);
        known += before[6];
    }
    const float sure = (same / (known > 1.0f ? known : 1.0f) - STRANGE) / (KNOWN - STRANGE);
    const float believed = SHARE * (sure < 0.0f ? 0.0f : sure < 1.0f ? sure : 1.0f);
    for (int i = 0; i < count; i++) {
        const float *fine = detail + (long)i * PIXELS * 3, *seen = anchors + (long)i * BINS * 4;
        float *map = matrices + (long)i * BINS * 12, *now = kept + (long)i * SETTLED, change[3] = {0.0f, 0.0f, 0.0f};
        for (int p = 0; p < PIXELS; p++)
            for (int c = 0; c < 3; c++) change[c] += fine[3 * p + c];
        for (int c = 0; c < 3; c++) {
            change[c] /= (float)PIXELS;
            for (int b = 0; b < BINS; b++) {
                const float *line = map + 12 * b + 4 * c, *a = seen + 4 * b;
                change[c] += a[3] * (line[0] * a[0] + line[1] * a[1] + line[2] * a[2] + line[3]);
            }
        }
        carried(i, rows, columns, motion, settled, before);
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
