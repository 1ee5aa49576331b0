/* Apply an edit to a frame's bytes: guide, slice, detail, strength and mask, one pass over the rows.
 *
 * The definition is `compose` and `Guide` in network.py; `compose_pixels` in cpu_pixels.py is the same for machines
 * without a C compiler; a test holds all three together. Written with the vector extensions of GCC and Clang, because
 * neither they nor numba's LLVM vectorise the inner loops of this by themselves.
 *
 * Per pixel and pass: 162 + 24 multiply-adds for the guide, 96 + 12 for slicing and applying four 3x4 matrices.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* aligned(4): read and written at any pixel. */
typedef float f8 __attribute__((vector_size(32), aligned(4)));
typedef int32_t i8 __attribute__((vector_size(32), aligned(4)));
typedef uint32_t u8 __attribute__((vector_size(32), aligned(4)));
typedef uint8_t b8 __attribute__((vector_size(8), aligned(1)));
#ifdef __AVX512F__
enum { WIDE = 64 };
#else
enum { WIDE = 32 };
#endif
typedef float wide __attribute__((vector_size(WIDE), aligned(4)));
typedef int32_t wide_bits __attribute__((vector_size(WIDE), aligned(4)));

enum { LANES = WIDE / 4, PAD = 16, LOOK = 6, BINS = 4, COEFFICIENTS = 48 };

static inline f8 load(const float *p) { return *(const f8 *)p; }
/* What is above zero, else zero: NaN as well. */
static inline wide positive(wide x) { return (wide)((wide_bits)x & (x > 0.0f)); }
/* Lane by lane; compilers turn it into one instruction. */
static inline wide root(wide x)
{
    for (int i = 0; i < LANES; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
}
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
static inline i8 choose(i8 which, i8 yes, i8 no) { return (which & yes) | (~which & no); }

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

/* The weights of the four bins for a row. */
static void guide_row(const float *rows[3], ptrdiff_t stride, int width, const float *look, const float *look_bias,
                      const float *weigh, const float *weigh_bias, float *weights, ptrdiff_t weights_stride)
{
    const wide none = {0};
    for (int x = 0; x < width; x += LANES) {
        wide seen[LOOK];
        for (int j = 0; j < LOOK; j++) seen[j] = none + look_bias[j];
        for (int r = 0; r < 3; r++)
            for (int t = 0; t < 3; t++)
                for (int c = 0; c < 3; c++) {
                    wide v = *(const wide *)(rows[r] + c * stride + x + t);
                    for (int j = 0; j < LOOK; j++) seen[j] += v * look[j * 27 + r * 9 + t * 3 + c];
                }
        wide w[BINS], total = none;
        for (int j = 0; j < LOOK; j++) seen[j] = positive(seen[j]);
        for (int b = 0; b < BINS; b++) {
            w[b] = none + weigh_bias[b];
            for (int j = 0; j < LOOK; j++) w[b] += seen[j] * weigh[b * LOOK + j];
            w[b] = 0.5f * (w[b] + root(w[b] * w[b] + 0.25f)) + 0.01f;
            total += w[b];
        }
        total = 1.0f / total;
        for (int b = 0; b < BINS; b++) *(wide *)(weights + b * weights_stride + x) = w[b] * total;
    }
}

/* One row of the detail, three planes of `stride` floats, between working rows `top` and `bottom`. */
static void detail_rows(const float *detail, int w, int top, int bottom, float part, ptrdiff_t stride, float *out)
{
    const float *a = detail + (ptrdiff_t)(top / 8) * w * 192 + (top % 8) * 24;
    const float *b = detail + (ptrdiff_t)(bottom / 8) * w * 192 + (bottom % 8) * 24;
    for (int x = 0; x < w; x++)
        for (int t = 0; t < 8; t++)
            for (int c = 0; c < 3; c++) {
                float p = a[x * 192 + t * 3 + c];
                out[c * stride + x * 8 + t] = p + (b[x * 192 + t * 3 + c] - p) * part;
            }
    for (int c = 0; c < 3; c++) out[c * stride + w * 8] = out[c * stride + w * 8 - 1];
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
                f8 value = (load(result + c * stride + x) + 1.0f) * 127.5f + 0.5f;
                value = (f8)((i8)value & (value > 0.0f));
                value = (f8)choose(value < 255.0f, (i8)value, (i8)full);
                after |= (u8)__builtin_convertvector(value, i8) << (uint32_t)(8 * order[c]);
            }
            if (mask) {
                i8 kept = __builtin_convertvector(*(const b8 *)(mask + x), i8) == 0;
                after = (u8)choose(kept, (i8)before, (i8)after);
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

/* `pixels`, `out` [height, width, channels] bytes, rows `pitch` and `out_pitch` bytes apart; `matrices` [h, w, 48];
 * `detail` [h, w, 192]; `mask` [height, width] or null, 0 keeps the source; the frame covers the first `content_h` x
 * `content_w` pixels of the working frame. Returns 0, or -1 where memory is short and nothing was written. */
int mirage_compose(const uint8_t *pixels, ptrdiff_t pitch, uint8_t *out, ptrdiff_t out_pitch, int height, int width,
                   int channels, const int64_t *order, const float *matrices, const float *detail, int h, int w,
                   const float *look, const float *look_bias, const float *weigh, const float *weigh_bias,
                   const uint8_t *mask, ptrdiff_t mask_pitch, float strength, int content_h, int content_w)
{
    const int same = content_h == height && content_w == width;
    const float scale_y = (float)content_h / (float)height, scale_x = (float)content_w / (float)width;
    const ptrdiff_t stride = width + 2 + 2 * PAD, drawn_stride = (ptrdiff_t)w * 8 + 1;
    const size_t floats = 9 * stride + (BINS + 3 + 3 + 3) * stride + (size_t)(w + 1) * COEFFICIENTS + 3 * drawn_stride + 16;
    float *memory = calloc(floats, sizeof(float));
    int32_t *place = calloc(2 * (size_t)width + 16, sizeof(int32_t));
    if (!memory || !place) {
        free(memory);
        free(place);
        return -1;
    }
    float *rows[3] = {memory, memory + 3 * stride, memory + 6 * stride};
    float *weights = memory + 9 * stride, *change = weights + BINS * stride, *result = change + 3 * stride;
    float *part = result + 3 * stride, *part_detail = part + stride;
    float *cells = part + 3 * stride, *drawn = cells + (ptrdiff_t)(w + 1) * COEFFICIENTS;
    int32_t *left = place, *left_detail = place + width + 8;
    for (int x = 0; x < width; x++) {
        float at = (x + 0.5f) * scale_x / 8.0f - 0.5f, near = (x + 0.5f) * scale_x - 0.5f;
        at = at > 0.0f ? at : 0.0f;
        near = near > 0.0f ? near : 0.0f;
        left[x] = (int)at < w - 1 ? (int)at : w - 1;
        part[x] = at - left[x] < 1.0f ? at - left[x] : 1.0f;
        left_detail[x] = (int)near < w * 8 - 1 ? (int)near : w * 8 - 1;
        part_detail[x] = near - left_detail[x] < 1.0f ? near - left_detail[x] : 1.0f;
    }
    load_row(pixels, channels, order, width, stride, rows[0]);
    memcpy(rows[2], rows[0], 3 * stride * sizeof(float));
    for (int y = 0; y < height; y++) {
        int below = y + 1 < height ? y + 1 : y;
        load_row(pixels + below * pitch, channels, order, width, stride, rows[(y + 1) % 3]);
        const float *around[3] = {rows[(y + 2) % 3], rows[y % 3], rows[(y + 1) % 3]};
        guide_row(around, stride, width, look, look_bias, weigh, weigh_bias, weights, stride);

        float at = (y + 0.5f) * scale_y / 8.0f - 0.5f;
        at = at > 0.0f ? at : 0.0f;
        int top = (int)at < h - 1 ? (int)at : h - 1, bottom = top + 1 < h ? top + 1 : h - 1;
        float part_y = at - top < 1.0f ? at - top : 1.0f;
        const float *upper = matrices + (ptrdiff_t)top * w * COEFFICIENTS;
        const float *lower = matrices + (ptrdiff_t)bottom * w * COEFFICIENTS;
        for (int i = 0; i < w * COEFFICIENTS; i++) cells[i] = upper[i] + (lower[i] - upper[i]) * part_y;
        memcpy(cells + (ptrdiff_t)w * COEFFICIENTS, cells + (ptrdiff_t)(w - 1) * COEFFICIENTS, COEFFICIENTS * 4);

        const float *added = drawn;
        ptrdiff_t added_stride = drawn_stride;
        if (same) {
            detail_rows(detail, w, y, y, 0.0f, drawn_stride, drawn);
        } else {
            float near = (y + 0.5f) * scale_y - 0.5f;
            near = near > 0.0f ? near : 0.0f;
            int first = (int)near < h * 8 - 1 ? (int)near : h * 8 - 1, second = first + 1 < h * 8 ? first + 1 : first;
            detail_rows(detail, w, first, second, near - first < 1.0f ? near - first : 1.0f, drawn_stride, drawn);
            /* A frame is never enlarged: eight of its pixels lie within nine of the working frame's. */
            for (int x = 0; x < width; x += 8) {
                i8 from = (*(const i8 *)(left_detail + x) - left_detail[x]) & 15;
                f8 near = load(part_detail + x);
                for (int c = 0; c < 3; c++) {
                    const float *p = drawn + c * drawn_stride + left_detail[x];
                    f8 a = load(p), b = load(p + 8), here = lanes_of(a, b, from);
                    *(f8 *)(change + c * stride + x) = here + (lanes_of(a, b, (from + 1) & 15) - here) * near;
                }
            }
            added = change;
            added_stride = stride;
        }

        const float *now = around[1] + 1;
        for (int x = 0; x < width;) {
            /* Pixels between the same two cells: their matrices are a + part * d. */
            const float *a = cells + (ptrdiff_t)left[x] * COEFFICIENTS;
            float d[COEFFICIENTS];
            for (int i = 0; i < COEFFICIENTS; i++) d[i] = a[COEFFICIENTS + i] - a[i];
            int end = x + 1;
            while (end < width && left[end] == left[x]) end++;
            for (; x < end; x += 8) {
                f8 along = load(part + x), w0[BINS], w1[BINS], v[3];
                for (int b = 0; b < BINS; b++) {
                    w0[b] = load(weights + b * stride + x);
                    w1[b] = w0[b] * along;
                }
                for (int c = 0; c < 3; c++) v[c] = load(now + c * stride + x);
                for (int c = 0; c < 3; c++) {
                    f8 sum = {0};
                    /* Past the end of the row nothing is read that is used. */
                    if (x + 8 <= (same ? w * 8 : width)) sum = load(added + c * added_stride + x);
                    else for (int i = 0; x + i < width; i++) sum[i] = added[c * added_stride + x + i];
                    for (int j = 0; j < 4; j++) {
                        f8 m = {0};
                        for (int b = 0; b < BINS; b++) {
                            int k = b * 12 + c * 4 + j;
                            m += w0[b] * a[k];
                            m += w1[b] * d[k];
                        }
                        sum += j < 3 ? m * v[j] : m;
                    }
                    *(f8 *)(result + c * stride + x) = v[c] + strength * sum;
                }
            }
            x = end;
        }
        store_row(result, stride, pixels + y * pitch, mask ? mask + y * mask_pitch : NULL, channels, order, width,
                  out + y * out_pitch);
    }
    free(memory);
    free(place);
    return 0;
}
