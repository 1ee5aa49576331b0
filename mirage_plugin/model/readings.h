/* What the readings of four cells make of the pixels between them, eight at a time.
 *
 * The definition is `slice_readings` in network.py. A reading counts by its place (bilinear), by its share of its cell,
 * and by the square of how like the pixel its colour is. Per pixel and reading 9 + 3 multiply-adds for its transform
 * and 12 operations for what it counts; there are sixteen.
 */
#ifndef MIRAGE_READINGS_H
#define MIRAGE_READINGS_H
#include "vectors.h"

enum { READINGS = 4, COEFFICIENTS = 12 * READINGS, ANCHORS = 4 * READINGS };
/* As in mirage_kernels/compose.py, where it says why. */
static const float SIMILAR = 0.04f;

static inline f8 all8(float x) { return x - (f8){0}; }

/* Four cells around pixels: upper left, upper right, lower left, lower right. */
struct corners {
    const float *matrices[4], *anchors[4];
};

static inline struct corners corners_of(const float *matrices, const float *anchors, int w, int top, int bottom, int left, int right)
{
    const ptrdiff_t at[4] = {(ptrdiff_t)top * w + left, (ptrdiff_t)top * w + right, (ptrdiff_t)bottom * w + left,
                             (ptrdiff_t)bottom * w + right};
    struct corners out;
    for (int k = 0; k < 4; k++) {
        out.matrices[k] = matrices + at[k] * COEFFICIENTS;
        out.anchors[k] = anchors + at[k] * ANCHORS;
    }
    return out;
}

/* Where pixel x falls between the centres of `cells`, `scale` working pixels to each of the display's: the cell before it,
 * and how far behind that, in cells. */
static inline float between(int x, float scale, int cells, int *left)
{
    float at = (x + 0.5f) * scale / 8.0f - 0.5f;
    at = at > 0.0f ? at : 0.0f;
    *left = (int)at < cells - 1 ? (int)at : cells - 1;
    return at - *left < 1.0f ? at - *left : 1.0f;
}

/* How unlike a reading's colour pixels of v are: 1 where it is theirs, 2 at a squared distance of SIMILAR. */
static inline f8 unlike(const float *anchor, const f8 v[3])
{
    const f8 r = v[0] - anchor[0], g = v[1] - anchor[1], b = v[2] - anchor[2];
    return 1.0f + (r * r + g * g + b * b) * (1.0f / SIMILAR);
}

/* What pixels take of the four cells by their place: `right` how far right they lie, `down` how far down. */
static inline void by_place(f8 right, float down, f8 near[4])
{
    near[1] = right * (1.0f - down);
    near[0] = (1.0f - right) * (1.0f - down);
    near[3] = right * down;
    near[2] = (1.0f - right) * down;
}

/* The change of v, for `many` vectors of eight pixels between the same cells. An estimate of what readings count is
 * enough for bytes: they are divided by their sum. */
static inline __attribute__((always_inline)) void
slice_readings(const int many, const int exact, const struct corners *cells, const f8 v[2][3], const f8 right[2], float down, f8 change[2][3])
{
    /* How much of each reading a pixel takes, first: the sums below then wait for nothing. */
    f8 count[4 * READINGS][2], whole[2];
#pragma GCC unroll 2
    for (int s = 0; s < many; s++) {
        f8 near[4], total = {0};
        by_place(right[s], down, near);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
#pragma GCC unroll 4
            for (int b = 0; b < READINGS; b++) {
                const float *anchor = cells->anchors[k] + 4 * b;
                const f8 far = unlike(anchor, v[s]), like = exact ? reciprocal8(far) : estimate8(far);
                const f8 some = near[k] * anchor[3] * (like * like);
                count[READINGS * k + b][s] = some;
                total += some;
            }
        whole[s] = reciprocal8(total);
    }
#pragma GCC unroll 1
    for (int c = 0; c < 3; c++) {
        f8 sum[2] = {{0}, {0}};
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
#pragma GCC unroll 4
            for (int b = 0; b < READINGS; b++) {
                const float *m = cells->matrices[k] + 12 * b + 4 * c;
                const f8 r = all8(m[0]), g = all8(m[1]), u = all8(m[2]), o = all8(m[3]);
#pragma GCC unroll 2
                for (int s = 0; s < many; s++) {
                    f8 made = r * v[s][0] + o;
                    made = g * v[s][1] + made;
                    made = u * v[s][2] + made;
                    sum[s] += count[READINGS * k + b][s] * made;
                }
            }
#pragma GCC unroll 2
        for (int s = 0; s < many; s++) change[s][c] = sum[s] * whole[s];
    }
}
#endif
