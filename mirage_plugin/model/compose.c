/* Apply an edit to a frame's bytes: slice, detail, lines, strength and mask, one pass over the rows.
 *
 * The definition is `compose` in network.py; `compose_pixels` in cpu_pixels.py is the same for machines without a C
 * compiler; a test holds all three together. Written with the vector extensions of GCC and Clang, because neither they
 * nor numba's LLVM vectorise the inner loops of this by themselves.
 */
#include "crew.h"
#include "readings.h"
#include <stdlib.h>

typedef uint32_t u8 __attribute__((vector_size(32), aligned(1)));
typedef uint8_t b8 __attribute__((vector_size(8), aligned(1)));

enum { PAD = 32, DETAIL = 192, PENS = 8 };
/* So many rows of cells are a part of the work: at the first of them detail is unpacked that another part has as well. */
enum { TOGETHER = 4 };

static inline i8 choose8(i8 which, i8 yes, i8 no) { return (which & yes) | (~which & no); }
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

/* A row as v, three planes of `stride` floats, and what is past its end. */
static void load_row(const uint8_t *pixels, int channels, const int64_t *order, int width, ptrdiff_t stride, float *out)
{
    const float scale = 2.0f / 255.0f;
    int x = 0;
    if (channels == 4)
        for (; x + 8 <= width; x += 8) {
            u8 pixel = *(const u8 *)(pixels + 4 * x);
            for (int c = 0; c < 3; c++) {
                i8 value = (i8)((pixel >> (uint32_t)(8 * order[c])) & 255u);
                *(f8 *)(out + c * stride + x) = __builtin_convertvector(value, f8) * scale - 1.0f;
            }
        }
    for (; x < width; x++)
        for (int c = 0; c < 3; c++) out[c * stride + x] = pixels[channels * x + order[c]] * scale - 1.0f;
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < PAD; i++) out[c * stride + width + i] = out[c * stride + width - 1];
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

/* Apply to a row of pixels `now` what the cells of two rows, `top` and `bottom`, make of them, and add the detail, of
 * which `there_is` so many pixels. `left` is the cell before each pixel, `stop` where the run of pixels behind the same
 * cell ends, `part` how far right a pixel lies. All rows but those of cells and detail have planes `stride` floats
 * apart. */
static __attribute__((noinline)) void
slice_row(const float *matrices, const float *anchors, int top, int bottom, float down, int w, const int32_t *left,
          const int32_t *stop, const float *part, ptrdiff_t stride, const float *added, ptrdiff_t added_stride, int there_is,
          const float *now, int width, float strength, float *result)
{
    for (int x = 0; x < width;) {
        const int cell = left[x], end = stop[x];
        const struct corners cells = corners_of(matrices, anchors, w, top, bottom, cell, cell + 1 < w ? cell + 1 : cell);
        while (x < end) {
            const int many = end - x > 8 ? 2 : 1;
            f8 v[2][3], right[2], change[2][3];
            for (int s = 0; s < many; s++) {
                for (int c = 0; c < 3; c++) v[s][c] = load8(now + c * stride + x + 8 * s);
                right[s] = load8(part + x + 8 * s);
            }
            if (many == 2) slice_readings(2, 0, &cells, v, right, down, change);
            else slice_readings(1, 0, &cells, v, right, down, change);
            for (int s = 0; s < many; s++)
                for (int c = 0; c < 3; c++) {
                    const int at = x + 8 * s;
                    f8 detail = {0};
                    /* Past the end of the row nothing is read that is used. */
                    if (at + 8 <= there_is) detail = load8(added + c * added_stride + at);
                    else for (int i = 0; at + i < width && i < 8; i++) detail[i] = added[c * added_stride + at + i];
                    *(f8 *)(result + c * stride + at) = v[s][c] + strength * (change[s][c] + detail);
                }
            x += 8 * many;
        }
        x = end;
    }
}

/* Where the points of a field lie on the display. */
struct points {
    const uint8_t *field[2]; /* of lines as dark, and as bright, as they get: [rows, columns] */
    int rows, columns, same;
    float scale_y, scale_x;
    int32_t *left;
    float *part;
};

/* A row of one of its fields at the display's pixels, in [0, 1]: between its entries, and steeper than that spreads
 * them, so that a line stays dark in its middle, and white beside. `between` is one row of it. */
static void line_row(const struct points *p, int which, int y, int width, float *between_rows, float *restrict out)
{
    if (p->same) {
        const uint8_t *from = p->field[which] + (ptrdiff_t)y * p->columns;
        for (int x = 0; x < width; x++) out[x] = from[x] * (1.0f / 255.0f);
        return;
    }
    float at = (y + 0.5f) * p->scale_y - 0.5f;
    at = at > 0.0f ? at : 0.0f;
    const int top = (int)at < p->rows - 1 ? (int)at : p->rows - 1, bottom = top + 1 < p->rows ? top + 1 : top;
    const float down = at - top < 1.0f ? at - top : 1.0f;
    const uint8_t *above = p->field[which] + (ptrdiff_t)top * p->columns, *below = p->field[which] + (ptrdiff_t)bottom * p->columns;
    float *restrict row = between_rows;
    for (int x = 0; x < p->columns; x++) row[x] = above[x] + down * (float)(below[x] - above[x]);
    row[p->columns] = row[p->columns - 1];
    for (int x = 0; x < width; x++) {
        const float *here = row + p->left[x];
        out[x] = (here[0] + p->part[x] * (here[1] - here[0])) * (4.0f / 3.0f / 255.0f) - 1.0f / 6.0f;
    }
    for (int x = 0; x < width; x++) out[x] = out[x] > 0.0f ? out[x] < 1.0f ? out[x] : 1.0f : 0.0f;
}

/* Draw a row's lines over `result`, and go only as far from `now` as `strength` says. `amounts` has two rows of a cell's
 * numbers, one cell more than there are; `line` two of pixels. */
static void draw_lines(const float *pens, int top, int bottom, float down, int w, const int32_t *left, const int32_t *stop,
                       const float *part, ptrdiff_t stride, int width, float strength, float *amounts, float *line,
                       const float *now, float *result)
{
    float *dark = amounts, *bright = amounts + w + 1;
    for (int x = 0; x < w; x++) {
        const float *a = pens + ((ptrdiff_t)top * w + x) * PENS, *b = pens + ((ptrdiff_t)bottom * w + x) * PENS;
        dark[x] = a[0] + down * (b[0] - a[0]);
        bright[x] = a[1] + down * (b[1] - a[1]);
    }
    dark[w] = dark[w - 1];
    bright[w] = bright[w - 1];
    float *restrict ink = line, *restrict shine = line + stride;
    for (int x = 0; x < width;) {
        const int cell = left[x], end = stop[x];
        const float d = dark[cell], more = dark[cell + 1] - d, b = bright[cell], brighter = bright[cell + 1] - b;
        for (int i = x; i < end; i++) ink[i] *= d + part[i] * more;
        for (int i = x; i < end; i++) shine[i] *= b + part[i] * brighter;
        x = end;
    }
    for (int x = 0; x < width; x++) ink[x] = ink[x] > 0.0f ? ink[x] < 1.0f ? ink[x] : 1.0f : 0.0f;
    for (int c = 0; c < 3; c++) {
        const float colour = pens[2 + c], glow = pens[5 + c];
        const float *restrict was = now + c * stride;
        float *restrict made = result + c * stride;
        for (int x = 0; x < width; x++) {
            const float drawn = made[x] + ink[x] * (colour - made[x]) + shine[x] * glow;
            made[x] = was[x] + strength * (drawn - was[x]);
        }
    }
}

/* `pixels`, `out` [height, width, channels] bytes, rows `pitch` and `out_pitch` bytes apart; `matrices` [h, w, 48];
 * `detail` [h, w, 192]; `anchors` [h, w, 16]; `mask` [height, width] or null, 0 keeps the source; the frame covers the
 * first `content_h` x `content_w` pixels of the working frame. `lines` [2, lines_h, lines_w] bytes or null, of which the
 * first `shown_h` x `shown_w` points cover the frame, are drawn with `pens` [h, w, 8]. Returns 0, or -1 where memory is
 * short and there is no picture. Rows are what threads share, in one phase (crew.h); number 0 returns when all are done,
 * and one that comes after that reads nothing. */
int mirage_compose(struct phase *phases, int me, int threads, const uint8_t *pixels, ptrdiff_t pitch, uint8_t *out,
                   ptrdiff_t out_pitch, int height, int width, int channels, const int64_t *order, const float *matrices,
                   const float *detail, const float *anchors, const float *pens, int h, int w, const uint8_t *mask,
                   ptrdiff_t mask_pitch, float strength, int content_h, int content_w, const uint8_t *lines, int lines_h,
                   int lines_w, float shown_h, float shown_w)
{
    struct crew crew = {phases, me, threads};
    const int same = content_h == height && content_w == width;
    const float scale_y = (float)content_h / (float)height, scale_x = (float)content_w / (float)width;
    const ptrdiff_t stride = width + PAD, drawn_stride = (ptrdiff_t)w * 8 + 16;
    const int rows = (int)((float)(TOGETHER * 8) / scale_y), parts = (height + rows - 1) / rows;
    const size_t of_lines = lines ? 3 * (size_t)stride + 2 * (size_t)w + 2 + (size_t)lines_w + 1 : 0;
    const size_t floats = (3 + 3 + 3 + 2) * stride + 48 * drawn_stride + 16 + of_lines;
    float *memory = calloc(floats, sizeof(float));
    int32_t *place = calloc(4 * (size_t)width + 32, sizeof(int32_t));
    if (!memory || !place) {
        free(memory);
        free(place);
        if (me != 0) return -1; /* the others do it */
        while (take(&crew, parts) >= 0) done(&crew);
        together(&crew, parts);
        return -1;
    }
    float *now = memory, *change = memory + 3 * stride, *result = change + 3 * stride;
    float *part = result + 3 * stride, *part_detail = part + stride;
    float *drawn = part + 2 * stride; /* sixteen rows of detail: those of two rows of cells */
    int32_t *left = place, *left_detail = place + width + 8, *stop = place + 2 * (ptrdiff_t)width + 16;
    for (int x = 0; x < width; x++) {
        float near = (x + 0.5f) * scale_x - 0.5f;
        near = near > 0.0f ? near : 0.0f;
        part[x] = between(x, scale_x, w, &left[x]);
        left_detail[x] = (int)near < w * 8 - 1 ? (int)near : w * 8 - 1;
        part_detail[x] = near - left_detail[x] < 1.0f ? near - left_detail[x] : 1.0f;
    }
    for (int x = width - 1; x >= 0; x--) stop[x] = x + 1 < width && left[x + 1] == left[x] ? stop[x + 1] : x + 1;
    struct points points = {.rows = lines_h, .columns = lines_w, .left = place + 3 * (ptrdiff_t)width + 24};
    float *line = drawn + 48 * drawn_stride + 16, *amounts = line + 3 * stride, *between_rows = amounts + 2 * w + 2;
    if (lines) {
        points.field[0] = lines;
        points.field[1] = lines + (ptrdiff_t)lines_h * lines_w;
        points.same = shown_h == (float)height && shown_w == (float)width;
        points.scale_y = shown_h / (float)height;
        points.scale_x = shown_w / (float)width;
        points.part = line + 2 * stride;
        for (int x = 0; x < width; x++) {
            float at = (x + 0.5f) * points.scale_x - 0.5f;
            at = at > 0.0f ? at : 0.0f;
            points.left[x] = (int)at < lines_w - 1 ? (int)at : lines_w - 1;
            points.part[x] = at - points.left[x] < 1.0f ? at - points.left[x] : 1.0f;
        }
    }
    for (int part_of_work; (part_of_work = take(&crew, parts)) >= 0; done(&crew)) {
        int drawn_to = -1; /* the last row of detail that is there */
        for (int y = part_of_work * rows; y < height && y < (part_of_work + 1) * rows; y++) {
            int top;
            const float part_y = between(y, scale_y, h, &top);
            load_row(pixels + y * pitch, channels, order, width, stride, now);

            float near = same ? (float)y : (y + 0.5f) * scale_y - 0.5f;
            near = near > 0.0f ? near : 0.0f;
            int first = (int)near < h * 8 - 1 ? (int)near : h * 8 - 1;
            int second = first + 1 < h * 8 && !same ? first + 1 : first;
            if (y == part_of_work * rows) drawn_to = first / 8 * 8 - 1;
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

            slice_row(matrices, anchors, top, top + 1 < h ? top + 1 : top, part_y, w, left, stop, part, stride, added,
                      added_stride, same ? w * 8 : width, now, width, lines ? 1.0f : strength, result);
            if (lines) {
                for (int which = 0; which < 2; which++) line_row(&points, which, y, width, between_rows, line + which * stride);
                draw_lines(pens, top, top + 1 < h ? top + 1 : top, part_y, w, left, stop, part, stride, width, strength, amounts,
                           line, now, result);
            }
            store_row(result, stride, pixels + y * pitch, mask ? mask + y * mask_pitch : NULL, channels, order, width,
                      out + y * out_pitch);
        }
    }
    together(&crew, parts);
    free(memory);
    free(place);
    return 0;
}

/* Draw an answer in square pixels of `side`, in place, as far as `amount` says: `pixelate` in mirage_kernels. A fourth
 * channel stays, and so does what `mask` keeps. Returns -1 where memory is short, and then nothing was written. */
int mirage_pixelate(uint8_t *out, ptrdiff_t pitch, int height, int width, int channels, int side, float amount,
                    const uint8_t *mask, ptrdiff_t mask_pitch)
{
    const size_t many = (size_t)width * (size_t)channels;
    uint32_t *sums = malloc(many * sizeof(uint32_t));
    float *coarse = malloc(many * sizeof(float)), *share = malloc(many * sizeof(float));
    uint8_t *before = malloc(many);
    if (!sums || !coarse || !share || !before) {
        free(sums);
        free(coarse);
        free(share);
        free(before);
        return -1;
    }
    for (size_t i = 0; i < many; i++) share[i] = i % (size_t)channels < 3 ? amount : 0.0f;
    for (int top = 0; top < height; top += side) {
        memset(sums, 0, many * sizeof(uint32_t));
        for (int k = 0; k < side; k++) {
            /* At the edge what is there is repeated. */
            const uint8_t *restrict row = out + (top + k < height ? top + k : height - 1) * pitch;
            for (size_t i = 0; i < many; i++) sums[i] += row[i];
        }
        for (int left = 0; left < width; left += side)
            for (int c = 0; c < channels; c++) {
                uint32_t total = 0;
                for (int k = 0; k < side; k++) total += sums[(left + k < width ? left + k : width - 1) * channels + c];
                const float mean = (float)total / (float)(side * side);
                for (int k = 0; k < side && left + k < width; k++) coarse[(left + k) * channels + c] = mean;
            }
        for (int y = top; y < top + side && y < height; y++) {
            uint8_t *restrict row = out + y * pitch;
            if (mask) memcpy(before, row, many);
            for (size_t i = 0; i < many; i++)
                row[i] = (uint8_t)(int)(row[i] + share[i] * (coarse[i] - row[i]) + 0.5f);
            if (mask)
                for (int x = 0; x < width; x++)
                    if (mask[y * mask_pitch + x] == 0) memcpy(row + x * channels, before + x * channels, (size_t)channels);
        }
    }
    free(sums);
    free(coarse);
    free(share);
    free(before);
    return 0;
}
