/* Apply an edit to a frame's bytes: guide, slice, detail, strength and mask, one pass over the rows.
 *
 * The definition is `compose` and `Guide` in network.py; `compose_pixels` in cpu_pixels.py is the same for machines
 * without a C compiler; a test holds all three together. Written with the vector extensions of GCC and Clang, because
 * neither they nor numba's LLVM vectorise the inner loops of this by themselves.
 *
 * Per pixel and pass: 162 + 24 multiply-adds for the guide, 192 + 12 for slicing and applying four 3x4 matrices, some
 * 50 for what each of the four cells around counts.
 */
#include "vectors.h"
#include <stdlib.h>

typedef uint32_t u8 __attribute__((vector_size(32), aligned(4)));
typedef uint8_t b8 __attribute__((vector_size(8), aligned(1)));

enum { PAD = 32, LOOK = 6, BINS = 4, COEFFICIENTS = 48, DETAIL = 192 };
/* As in mirage_kernels/compose.py, where it says why. */
static const float SIMILAR = 0.02f;

static inline i8 choose8(i8 which, i8 yes, i8 no) { return (which & yes) | (~which & no); }
/* What is above zero, else zero: NaN as well. */
static inline vec positive(vec x) { return (vec)((ints)x & (x > 0.0f)); }
/* Lanes of two vectors that lie side by side, 0 to 15. */
static inline f8 lanes_of(f8 a, f8 b, i8 which)
{
#ifdef __clang__
    f8 out;
    for (int i = 0; i < 8; i++) out[i] = which[i] < 8 ? a[which[i]] : b[which[i] - 8];
    return out;
#else
    return __builtin_shuffle(a, b, which);
#endif
}

/* A row as v, three planes of `stride` floats, one pixel of repeated edge before and after. */
static void load_row(const uint8_t *pixels, int channels, const int64_t *order, int width, ptrdiff_t stride, float *out)
{
    const float scale = 2.0f / 255.0f;
    int x = 0;
    if (channels == 4)
        for (; x + 8 <= width; x += 8) {
            u8 pixel = *(const u8 *)(pixels + 4 * x);
            for (int c = 0; c < 3; c++) {
                i8 value = (i8)((pixel >> (uint32_t)(8 * order[c])) & 255u);
                *(f8 *)(out + c * stride + 1 + x) = __builtin_convertvector(value, f8) * scale - 1.0f;
            }
        }
    for (; x < width; x++)
        for (int c = 0; c < 3; c++) out[c * stride + 1 + x] = pixels[channels * x + order[c]] * scale - 1.0f;
    for (int c = 0; c < 3; c++) {
        out[c * stride] = out[c * stride + 1];
        for (int i = 0; i < PAD; i++) out[c * stride + 1 + width + i] = out[c * stride + width];
    }
}

/* The weights of the four bins for a row; two vectors of pixels share every weight that is read. */
static __attribute__((noinline)) void
guide_row(const float *rows[3], ptrdiff_t stride, int width, const float *look, const float *look_bias,
          const float *weigh, const float *weigh_bias, float *weights, ptrdiff_t weights_stride)
{
    for (int x = 0; x < width; x += 2 * LANES) {
        vec seen[LOOK][2];
#pragma GCC unroll 6
        for (int j = 0; j < LOOK; j++) seen[j][0] = seen[j][1] = all(look_bias[j]);
#pragma GCC unroll 1
        for (int r = 0; r < 3; r++) {
            const float *from = rows[r] + x, *taps = look + r * 9;
#pragma GCC unroll 3
            for (int t = 0; t < 3; t++)
#pragma GCC unroll 3
                for (int c = 0; c < 3; c++) {
                    const vec left = load(from + c * stride + t), right = load(from + c * stride + t + LANES);
#pragma GCC unroll 6
                    for (int j = 0; j < LOOK; j++) {
                        const vec tap = all(taps[j * 27 + t * 3 + c]);
                        ADD_PRODUCT(seen[j][0], left, tap);
                        ADD_PRODUCT(seen[j][1], right, tap);
                    }
                }
        }
#pragma GCC unroll 2
        for (int side = 0; side < 2; side++) {
            vec w[BINS], total = {0};
            for (int j = 0; j < LOOK; j++) seen[j][side] = positive(seen[j][side]);
            for (int b = 0; b < BINS; b++) {
                w[b] = all(weigh_bias[b]);
                for (int j = 0; j < LOOK; j++) w[b] += seen[j][side] * weigh[b * LOOK + j];
                w[b] = 0.5f * (w[b] + root(w[b] * w[b] + 0.25f)) + 0.01f;
                total += w[b];
            }
            total = reciprocal(total);
            for (int b = 0; b < BINS; b++) store(weights + b * weights_stride + x + side * LANES, w[b] * total);
        }
    }
}

/* The detail of a row of cells: eight rows of three planes, `stride` floats each; every cell is read once, from end
 * to end. */
static void detail_rows(const float *detail, int w, ptrdiff_t stride, float *out)
{
    /* Eight pixels of three channels: a channel's lie in lanes of their own, a third in each vector. */
    const i8 first = {-1, 0, 0, -1, 0, 0, -1, 0}, second = {0, -1, 0, 0, -1, 0, 0, -1};
    const i8 last = {0, 0, -1, 0, 0, -1, 0, 0};
    for (int x = 0; x < w; x++)
        for (int row = 0; row < 8; row++) {
            const float *from = detail + x * DETAIL + row * 24;
            float *to = out + 3 * row * stride + x * 8;
            const i8 a = (i8)load8(from), b = (i8)load8(from + 8), c = (i8)load8(from + 16);
            const f8 red = (f8)((a & first) | (b & second) | (c & last));
            const f8 green = (f8)((a & second) | (b & last) | (c & first));
            const f8 blue = (f8)((a & last) | (b & first) | (c & second));
            *(f8 *)to = in_order(red, (i8){0, 3, 6, 1, 4, 7, 2, 5});
            *(f8 *)(to + stride) = in_order(green, (i8){1, 4, 7, 2, 5, 0, 3, 6});
            *(f8 *)(to + 2 * stride) = in_order(blue, (i8){2, 5, 0, 3, 6, 1, 4, 7});
        }
    for (int row = 0; row < 24; row++) out[row * stride + w * 8] = out[row * stride + w * 8 - 1];
}

static void store_row(const float *result, ptrdiff_t stride, const uint8_t *pixels, const uint8_t *mask, int channels,
                      const int64_t *order, int width, uint8_t *out)
{
    const f8 full = (f8){0} + 255.0f;
    int x = 0;
    if (channels == 4) {
        uint32_t painted = 0;
        for (int c = 0; c < 3; c++) painted |= 255u << (8 * order[c]);
        for (; x + 8 <= width; x += 8) {
            u8 before = *(const u8 *)(pixels + 4 * x), after = before & ~painted;
            for (int c = 0; c < 3; c++) {
                f8 value = (load8(result + c * stride + x) + 1.0f) * 127.5f + 0.5f;
                value = (f8)((i8)value & (value > 0.0f));
                value = (f8)choose8(value < 255.0f, (i8)value, (i8)full);
                after |= (u8)__builtin_convertvector(value, i8) << (uint32_t)(8 * order[c]);
            }
            if (mask) {
                i8 kept = __builtin_convertvector(*(const b8 *)(mask + x), i8) == 0;
                after = (u8)choose8(kept, (i8)before, (i8)after);
            }
            *(u8 *)(out + 4 * x) = after;
        }
    }
    for (; x < width; x++) {
        for (int c = 0; c < channels; c++) out[channels * x + c] = pixels[channels * x + c];
        if (mask && mask[x] == 0) continue;
        for (int c = 0; c < 3; c++) {
            float value = (result[c * stride + x] + 1.0f) * 127.5f + 0.5f;
            value = value > 0.0f ? value : 0.0f;
            out[channels * x + order[c]] = (uint8_t)(value < 255.0f ? value : 255.0f);
        }
    }
}

/* What the cells around some pixels come to there, for `many` vectors of eight: `cells` are their matrices, upper left,
 * upper right, lower left and lower right, `colours` their colours; `part` is how far right a pixel lies, `down` how far
 * down. Pointers are at the first pixel; planes lie `stride` floats apart. */
static inline __attribute__((always_inline)) void
slice_some(const int many, const float *const cells[4], const float *const colours[4], const float *part, float down,
           const float *weights, ptrdiff_t stride, const float *now, const f8 added[3][2], float strength, float *result)
{
    /* How much of each cell and reading a pixel takes. */
    f8 share[4 * BINS][2];
#pragma GCC unroll 2
    for (int s = 0; s < many; s++) {
        f8 far[4], v[3];
        const f8 right = load8(part + 8 * s), left = 1.0f - right;
#pragma GCC unroll 3
        for (int c = 0; c < 3; c++) v[c] = load8(now + c * stride + 8 * s);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const f8 r = v[0] - colours[k][0], g = v[1] - colours[k][1], b = v[2] - colours[k][2];
            far[k] = 1.0f + (r * r + g * g + b * b) * (1.0f / SIMILAR);
        }
        /* Of 1 / far: everything times all four, and one division in the end. */
        const f8 upper = far[0] * far[1], lower = far[2] * far[3];
        f8 k[4] = {left * (1.0f - down) * far[1] * lower, right * (1.0f - down) * far[0] * lower,
                   left * down * far[3] * upper, right * down * far[2] * upper};
        const f8 whole = 1.0f / (k[0] + k[1] + k[2] + k[3]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            k[i] *= whole;
#pragma GCC unroll 4
            for (int b = 0; b < BINS; b++) share[i * BINS + b][s] = k[i] * load8(weights + b * stride + 8 * s);
        }
    }
#pragma GCC unroll 1
    for (int c = 0; c < 3; c++) {
        f8 m[4][2] = {{{0}}};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
            for (int b = 0; b < BINS; b++)
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    const f8 number = cells[i][b * 12 + c * 4 + j] - (f8){0};
                    /* Eight sums side by side: four alone would wait for themselves. */
                    if (many == 2) ADD_PRODUCT(m[j][1], share[i * BINS + b][1], number);
                    ADD_PRODUCT(m[j][many == 2 ? 0 : i % 2], share[i * BINS + b][0], number);
                }
        if (many == 1)
            for (int j = 0; j < 4; j++) m[j][0] += m[j][1];
#pragma GCC unroll 2
        for (int s = 0; s < many; s++) {
            f8 sum = added[c][s] + m[3][s];
#pragma GCC unroll 3
            for (int j = 0; j < 3; j++) {
                const f8 v = load8(now + j * stride + 8 * s);
                ADD_PRODUCT(sum, m[j][s], v);
            }
            *(f8 *)(result + c * stride + 8 * s) = load8(now + c * stride + 8 * s) + strength * sum;
        }
    }
}

/* Blend the transforms of the cells between two rows of cells by the guide's weights, apply them to a row of pixels
 * `now`, and add the detail, of which `there_is` so many pixels. All rows but those of cells and detail have planes
 * `stride` floats apart. */
static __attribute__((noinline)) void
slice_row(const float *const matrices[2], const float *const colours[2], float down, int w, const int32_t *left,
          const int32_t *stop, const float *part, const float *weights, ptrdiff_t stride, const float *added,
          ptrdiff_t added_stride, int there_is, const float *now, int width, float strength, float *result)
{
    for (int x = 0; x < width;) {
        /* Pixels between the same cells. */
        const int cell = left[x], next = cell + 1 < w ? cell + 1 : cell, end = stop[x];
        const float *const cells[4] = {matrices[0] + (ptrdiff_t)cell * COEFFICIENTS, matrices[0] + (ptrdiff_t)next * COEFFICIENTS,
                                       matrices[1] + (ptrdiff_t)cell * COEFFICIENTS, matrices[1] + (ptrdiff_t)next * COEFFICIENTS};
        const float *const seen[4] = {colours[0] + 3 * cell, colours[0] + 3 * next,
                                      colours[1] + 3 * cell, colours[1] + 3 * next};
        while (x < end) {
            const int many = end - x > 8 ? 2 : 1;
            f8 sum[3][2] = {{{0}}};
            for (int c = 0; c < 3; c++)
                for (int s = 0; s < many; s++) {
                    const int at = x + 8 * s;
                    /* Past the end of the row nothing is read that is used. */
                    if (at + 8 <= there_is) sum[c][s] = load8(added + c * added_stride + at);
                    else for (int i = 0; at + i < width && i < 8; i++) sum[c][s][i] = added[c * added_stride + at + i];
                }
            if (many == 2) slice_some(2, cells, seen, part + x, down, weights + x, stride, now + x, sum, strength, result + x);
            else slice_some(1, cells, seen, part + x, down, weights + x, stride, now + x, sum, strength, result + x);
            x += 8 * many;
        }
        x = end;
    }
}

/* `pixels`, `out` [height, width, channels] bytes, rows `pitch` and `out_pitch` bytes apart; `matrices` [h, w, 48];
 * `detail` [h, w, 192]; `colours` [h, w, 3] of the cells in v; `mask` [height, width] or null, 0 keeps the source; the frame covers the first `content_h` x
 * `content_w` pixels of the working frame. Returns 0, or -1 where memory is short and nothing was written. */
int mirage_compose(const uint8_t *pixels, ptrdiff_t pitch, uint8_t *out, ptrdiff_t out_pitch, int height, int width,
                   int channels, const int64_t *order, const float *matrices, const float *detail, const float *colours, int h, int w,
                   const float *look, const float *look_bias, const float *weigh, const float *weigh_bias,
                   const uint8_t *mask, ptrdiff_t mask_pitch, float strength, int content_h, int content_w)
{
    const int same = content_h == height && content_w == width;
    const float scale_y = (float)content_h / (float)height, scale_x = (float)content_w / (float)width;
    const ptrdiff_t stride = width + 2 + 2 * PAD, drawn_stride = (ptrdiff_t)w * 8 + 16;
    const size_t floats = 9 * stride + (BINS + 3 + 3 + 3) * stride + 48 * drawn_stride + 16;
    float *memory = calloc(floats, sizeof(float));
    int32_t *place = calloc(3 * (size_t)width + 16, sizeof(int32_t));
    if (!memory || !place) {
        free(memory);
        free(place);
        return -1;
    }
    float *rows[3] = {memory, memory + 3 * stride, memory + 6 * stride};
    float *weights = memory + 9 * stride, *change = weights + BINS * stride, *result = change + 3 * stride;
    float *part = result + 3 * stride, *part_detail = part + stride;
    float *drawn = part + 3 * stride; /* sixteen rows of detail: those of two rows of cells */
    int32_t *left = place, *left_detail = place + width + 8, *stop = place + 2 * (ptrdiff_t)width + 16;
    for (int x = 0; x < width; x++) {
        float at = (x + 0.5f) * scale_x / 8.0f - 0.5f, near = (x + 0.5f) * scale_x - 0.5f;
        at = at > 0.0f ? at : 0.0f;
        near = near > 0.0f ? near : 0.0f;
        left[x] = (int)at < w - 1 ? (int)at : w - 1;
        part[x] = at - left[x] < 1.0f ? at - left[x] : 1.0f;
        left_detail[x] = (int)near < w * 8 - 1 ? (int)near : w * 8 - 1;
        part_detail[x] = near - left_detail[x] < 1.0f ? near - left_detail[x] : 1.0f;
    }
    for (int x = width - 1; x >= 0; x--) stop[x] = x + 1 < width && left[x + 1] == left[x] ? stop[x + 1] : x + 1;
    load_row(pixels, channels, order, width, stride, rows[0]);
    memcpy(rows[2], rows[0], 3 * stride * sizeof(float));
    int drawn_to = -1; /* the last row of it that is there */
    for (int y = 0; y < height; y++) {
        int below = y + 1 < height ? y + 1 : y;
        load_row(pixels + below * pitch, channels, order, width, stride, rows[(y + 1) % 3]);
        const float *around[3] = {rows[(y + 2) % 3], rows[y % 3], rows[(y + 1) % 3]};
        guide_row(around, stride, width, look, look_bias, weigh, weigh_bias, weights, stride);

        float at = (y + 0.5f) * scale_y / 8.0f - 0.5f;
        at = at > 0.0f ? at : 0.0f;
        int top = (int)at < h - 1 ? (int)at : h - 1, bottom = top + 1 < h ? top + 1 : h - 1;
        float part_y = at - top < 1.0f ? at - top : 1.0f;
        const float *const between[2] = {matrices + (ptrdiff_t)top * w * COEFFICIENTS,
                                         matrices + (ptrdiff_t)bottom * w * COEFFICIENTS};
        const float *const seen[2] = {colours + (ptrdiff_t)top * w * 3, colours + (ptrdiff_t)bottom * w * 3};

        float near = same ? (float)y : (y + 0.5f) * scale_y - 0.5f;
        near = near > 0.0f ? near : 0.0f;
        int first = (int)near < h * 8 - 1 ? (int)near : h * 8 - 1;
        int second = first + 1 < h * 8 && !same ? first + 1 : first;
        while (drawn_to < second) {
            detail_rows(detail + (ptrdiff_t)(drawn_to + 1) / 8 * w * DETAIL, w, drawn_stride,
                        drawn + (drawn_to + 1) % 16 * 3 * drawn_stride);
            drawn_to += 8;
        }
        const float *added = drawn + first % 16 * 3 * drawn_stride;
        ptrdiff_t added_stride = drawn_stride;
        if (!same) {
            const float *next = drawn + second % 16 * 3 * drawn_stride;
            const float down = near - first < 1.0f ? near - first : 1.0f;
            /* A frame is never enlarged: eight of its pixels lie within nine of the working frame's. */
            for (int x = 0; x < width; x += 8) {
                i8 from = (*(const i8 *)(left_detail + x) - left_detail[x]) & 15;
                f8 across = load8(part_detail + x);
                for (int c = 0; c < 3; c++) {
                    const ptrdiff_t from_here = c * drawn_stride + left_detail[x];
                    const float *p = added + from_here, *q = next + from_here;
                    f8 a = load8(p), b = load8(p + 8);
                    a += (load8(q) - a) * down;
                    b += (load8(q + 8) - b) * down;
                    const f8 here = lanes_of(a, b, from);
                    *(f8 *)(change + c * stride + x) = here + (lanes_of(a, b, (from + 1) & 15) - here) * across;
                }
            }
            added = change;
            added_stride = stride;
        }

        slice_row(between, seen, part_y, w, left, stop, part, weights, stride, added, added_stride,
                  same ? w * 8 : width, around[1] + 1, width, strength, result);
        store_row(result, stride, pixels + y * pitch, mask ? mask + y * mask_pitch : NULL, channels, order, width,
                  out + y * out_pitch);
    }
    free(memory);
    free(place);
    return 0;
}
