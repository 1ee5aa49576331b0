/* Slice a grid of readings and its gradients, for training on a processor: `slice_readings` of network.py on planes of
 * floats. `torch` would write what sixteen readings make of every pixel to memory and read it back several times.
 */
#include "readings.h"
#include <stdlib.h>

/* Pixels x to x + `many` of three planes, eight at most; what is past them is zero. */
static inline void load_some(const float *plane, ptrdiff_t size, int many, f8 out[3])
{
    for (int c = 0; c < 3; c++) {
        if (many == 8) out[c] = load8(plane + c * size);
        else {
            out[c] = (f8){0};
            memcpy(&out[c], plane + c * size, sizeof(float) * many);
        }
    }
}

/* Where a run of pixels between the same cells ends that begins at x: eight at most. */
static inline int run_end(int x, int width, float scale, int w)
{
    int cell, other, end = x + 1;
    between(x, scale, w, &cell);
    for (; end < width && end < x + 8; end++) {
        between(end, scale, w, &other);
        if (other != cell) break;
    }
    return end;
}

/* `v`, `out` [n, 3, height, width], `matrices` [n, h, w, 48], `anchors` [n, h, w, 16]. */
void mirage_slice(const float *v, const float *matrices, const float *anchors, float *out, int n, int height, int width,
                  int h, int w)
{
    const float scale_y = 8.0f * h / height, scale_x = 8.0f * w / width;
    const ptrdiff_t size = (ptrdiff_t)height * width;
    for (int i = 0; i < n; i++, v += 3 * size, out += 3 * size, matrices += h * w * COEFFICIENTS, anchors += h * w * ANCHORS)
        for (int x = 0, end; x < width; x = end) {
            int left = 0, top;
            const int many = (end = run_end(x, width, scale_x, w)) - x;
            f8 right[2] = {{0}, {0}}, now[2][3], change[2][3];
            for (int j = 0; j < many; j++) right[0][j] = between(x + j, scale_x, w, &left);
            for (int y = 0; y < height; y++) {
                const float down = between(y, scale_y, h, &top);
                const struct corners cells = corners_of(matrices, anchors, w, top, top + 1 < h ? top + 1 : top, left,
                                                        left + 1 < w ? left + 1 : left);
                load_some(v + (ptrdiff_t)y * width + x, size, many, now[0]);
                slice_readings(1, 1, &cells, now, right, down, change);
                for (int c = 0; c < 3; c++) memcpy(out + c * size + (ptrdiff_t)y * width + x, &change[0][c], sizeof(float) * many);
            }
        }
}

/* `slope` is the gradient of `out`; those of matrices and anchors are added to. */
void mirage_slice_back(const float *v, const float *matrices, const float *anchors, const float *out, const float *slope,
                       float *matrix_slope, float *anchor_slope, int n, int height, int width, int h, int w)
{
    const float scale_y = 8.0f * h / height, scale_x = 8.0f * w / width;
    const ptrdiff_t size = (ptrdiff_t)height * width;
    for (int i = 0; i < n; i++) {
        for (int x = 0, end; x < width; x = end) {
            int left = 0;
            const int many = (end = run_end(x, width, scale_x, w)) - x;
            f8 right = {0};
            for (int j = 0; j < many; j++) right[j] = between(x + j, scale_x, w, &left);
            const int next = left + 1 < w ? left + 1 : left;
            for (int y = 0; y < height;) {
                int top, other;
                between(y, scale_y, h, &top);
                const int below = top + 1 < h ? top + 1 : top;
                const struct corners cells = corners_of(matrices, anchors, w, top, below, left, next);
                /* Over the rows between the same cells, before the eight are added up. */
                f8 sums[4 * READINGS][16];
                memset(sums, 0, sizeof(sums));
                for (; y < height; y++) {
                    const float down = between(y, scale_y, h, &other);
                    if (other != top) break;
                    const ptrdiff_t at = (ptrdiff_t)y * width + x;
                    f8 now[3], s[3], was[3], near[4], like[4 * READINGS], total = {0};
                    load_some(v + at, size, many, now);
                    load_some(slope + at, size, many, s);
                    load_some(out + at, size, many, was);
                    by_place(right, down, near);
                    for (int k = 0; k < 4; k++)
                        for (int b = 0; b < READINGS; b++) {
                            const float *anchor = cells.anchors[k] + 4 * b;
                            const f8 a = like[4 * b + k] = reciprocal8(unlike(anchor, now));
                            total += near[k] * anchor[3] * (a * a);
                        }
                    total = reciprocal8(total);
                    const f8 mean = s[0] * was[0] + s[1] * was[1] + s[2] * was[2];
                    for (int k = 0; k < 4; k++)
                        for (int b = 0; b < READINGS; b++) {
                            const float *m = cells.matrices[k] + 12 * b, *anchor = cells.anchors[k] + 4 * b;
                            const f8 a = like[4 * b + k], count = near[k] * (a * a) * total, part = count * anchor[3];
                            f8 gain = -mean, *to = sums[4 * k + b];
                            for (int c = 0; c < 3; c++) {
                                gain += s[c] * (m[4 * c] * now[0] + m[4 * c + 1] * now[1] + m[4 * c + 2] * now[2] + m[4 * c + 3]);
                                const f8 p = s[c] * part;
                                to[4 * c] += p * now[0];
                                to[4 * c + 1] += p * now[1];
                                to[4 * c + 2] += p * now[2];
                                to[4 * c + 3] += p;
                            }
                            to[15] += gain * count;
                            /* The slope of like^2 along the anchor is like^2 * 4 / SIMILAR * like * (v - anchor). */
                            gain *= part * a * (4.0f / SIMILAR);
                            for (int c = 0; c < 3; c++) to[12 + c] += gain * (now[c] - anchor[c]);
                        }
                }
                for (int k = 0; k < 4; k++) {
                    const ptrdiff_t cell = (ptrdiff_t)(k < 2 ? top : below) * w + (k & 1 ? next : left);
                    for (int b = 0; b < READINGS; b++)
                        for (int c = 0; c < 16; c++) {
                            const f8 t = sums[4 * k + b][c];
                            const float whole = ((t[0] + t[4]) + (t[1] + t[5])) + ((t[2] + t[6]) + (t[3] + t[7]));
                            if (c < 12) matrix_slope[cell * COEFFICIENTS + 12 * b + c] += whole;
                            else anchor_slope[cell * ANCHORS + 4 * b + c - 12] += whole;
                        }
                }
            }
        }
        v += 3 * size, out += 3 * size, slope += 3 * size;
        matrices += h * w * COEFFICIENTS, matrix_slope += h * w * COEFFICIENTS;
        anchors += h * w * ANCHORS, anchor_slope += h * w * ANCHORS;
    }
}
