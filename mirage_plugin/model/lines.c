/* The lines of a frame, as `compose` draws them: `depth_lines`, `colour_lines` and `trace_lines` of
 * mirage_kernels/lines.py in one pass over the rows. There stands why; here is only how.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DETAIL = 192 };
static const float NEAREST = 1e-3f, SKY = 900.0f, TURN = 0.125f;

static inline float most(float a, float b) { return a > b ? a : b; }
static inline float size(float a) { return a < 0.0f ? -a : a; }
static inline float part(float a) { return a > 0.0f ? a < 1.0f ? a : 1.0f : 0.0f; }

/* Rows of a field under way, each of `width` values and one of zero on either side. */
struct rows {
    float *line[4], *across[4], *around[4], *sums[4], *nothing;
};

static size_t row_floats(int width) { return (size_t)width + 2; }

/* Row y has come into `line`; what can be known of rows before it goes on to where it is drawn: row y - 2. */
static void trace_row(struct rows *r, int y, int height, int width, float wide, uint8_t *drawn, uint8_t *shining)
{
    if (y < height) {
        const float *line = r->line[y & 3];
        float *across = r->across[y & 3];
        for (int x = 1; x <= width; x++) across[x] = most(most(line[x - 1], line[x + 1]), line[x]);
    }
    if (y >= 1 && y - 1 < height) {
        const float *above = y > 1 ? r->across[(y - 2) & 3] : r->nothing, *here = r->across[(y - 1) & 3];
        const float *below = y < height ? r->across[y & 3] : r->nothing;
        float *around = r->around[(y - 1) & 3], *sums = r->sums[(y - 1) & 3];
        for (int x = 1; x <= width; x++) around[x] = most(most(above[x], below[x]), here[x]);
        for (int x = 1; x <= width; x++) sums[x] = around[x - 1] + around[x] + around[x + 1];
    }
    const int at = y - 2;
    if (at < 0 || at >= height) return;
    const float *line = r->line[at & 3] + 1, *around = r->around[at & 3] + 1, *here = r->sums[at & 3] + 1;
    const float *above = (at > 0 ? r->sums[(at - 1) & 3] : r->nothing) + 1;
    const float *below = (at + 1 < height ? r->sums[(at + 1) & 3] : r->nothing) + 1;
    /* A byte may alias anything, unless it is said not to. */
    uint8_t *restrict drawn_row = drawn + (ptrdiff_t)at * width, *restrict shining_row = shining + (ptrdiff_t)at * width;
    for (int x = 0; x < width; x++) drawn_row[x] = (uint8_t)(int)((line[x] + wide * (around[x] - line[x])) * 255.0f + 0.5f);
    for (int x = 0; x < width; x++)
        shining_row[x] = (uint8_t)(int)(most(line[x], (above[x] + here[x] + below[x]) * (0.7f / 9.0f)) * 255.0f + 0.5f);
}

static float *begin_rows(struct rows *r, int width, size_t more)
{
    float *memory = calloc(17 * row_floats(width) + more, sizeof(float)), *free = memory;
    if (!memory) return NULL;
    for (int i = 0; i < 4; i++) {
        r->line[i] = free + 4 * (size_t)i * row_floats(width);
        r->across[i] = r->line[i] + row_floats(width);
        r->around[i] = r->across[i] + row_floats(width);
        r->sums[i] = r->around[i] + row_floats(width);
    }
    r->nothing = free + 16 * row_floats(width);
    return memory;
}

/* 1/z of a row of depth, of every display pixel in `columns` or of all; zero stands for the sky, 1/z is never that. */
static void invert_row(const float *depth, const int32_t *columns, int width, float *inverse)
{
    for (int x = 0; x < width; x++) {
        const float z = depth[columns ? columns[x] : x];
        const float near = z > NEAREST ? z : NEAREST;
        inverse[x] = 1.0f / near;
    }
    for (int x = 0; x < width; x++) {
        const float z = depth[columns ? columns[x] : x];
        /* What is not a number is as far as the sky. */
        inverse[x] = z < SKY ? inverse[x] : 1.0f / SKY;
    }
}

/* `depth` metres, rows `pitch` floats apart; of each of `height` x `width` points the display's pixel at `rows`,
 * `columns` (null: they are the same). `drawn`, `shining` [height, width] out. Returns -1 where memory is short. */
int mirage_depth_lines(const float *depth, ptrdiff_t pitch, const int32_t *rows, const int32_t *columns, int height,
                       int width, float wide, uint8_t *drawn, uint8_t *shining)
{
    struct rows r;
    float *memory = begin_rows(&r, width, 3 * (size_t)width);
    if (!memory) return -1;
    const float turn = (float)height * TURN;
    float *inverse[3];
    for (int i = 0; i < 3; i++) inverse[i] = memory + 17 * row_floats(width) + (size_t)i * (size_t)width;
    invert_row(depth + (rows ? rows[0] : 0) * pitch, columns, width, inverse[0]);
    for (int y = 0; y < height + 2; y++) {
        if (y + 1 < height) invert_row(depth + (rows ? rows[y + 1] : y + 1) * pitch, columns, width, inverse[(y + 1) % 3]);
        if (y < height) {
            const float *here = inverse[y % 3], *above = inverse[(y + 2) % 3], *below = inverse[(y + 1) % 3];
            float *restrict line = r.line[y & 3] + 1;
            /* At the field's edge nobody knows what is beside: no line. */
            if (y == 0 || y == height - 1) above = below = here;
            for (int x = 0; x < width; x++) line[x] = size(2.0f * here[x] - above[x] - below[x]);
            for (int x = 1; x < width - 1; x++)
                line[x] = most(line[x], size(2.0f * here[x] - here[x - 1] - here[x + 1]));
            for (int x = 0; x < width; x++) line[x] = part(line[x] / here[x] * turn - 0.05f);
            for (int x = 0; x < width; x++) line[x] = here[x] > 1.0f / SKY ? line[x] : 0.0f;
        }
        trace_row(&r, y, height, width, wide, drawn, shining);
    }
    free(memory);
    return 0;
}

/* Of bytes `cells` [h, w, 192] `drawn`, `shining` [4h, 4w] out, and `shares` [h, w, 2] of each cell that they cover.
 * Returns -1 where memory is short. */
int mirage_colour_lines(const uint8_t *cells, int h, int w, float wide, uint8_t *drawn, uint8_t *shining, float *shares)
{
    enum { ROW = 24 }; /* bytes of a cell's row */
    const int height = 4 * h, width = 4 * w;
    struct rows r;
    float *memory = begin_rows(&r, width, 6 * (size_t)width);
    uint16_t *column = calloc((size_t)(w + 2) * ROW, sizeof(uint16_t));
    if (!memory || !column) {
        free(memory);
        free(column);
        return -1;
    }
    float *means = memory + 17 * row_floats(width);
    uint16_t *const sums_of = column + ROW; /* a cell more on either side: the edge's pixels again */
    for (int y = 0; y < height + 2; y++) {
        if (y < height) {
            /* Sums of 4x4 pixels against those to the left and above. */
            for (int k = 0; k < 4; k++) {
                int row = 2 * y - 1 + k;
                row = row < 0 ? 0 : row < 8 * h ? row : 8 * h - 1;
                const uint8_t *from = cells + (ptrdiff_t)(row / 8) * w * DETAIL + row % 8 * ROW;
                for (int x = 0; x < w; x++)
                    for (int i = 0; i < ROW; i++)
                        sums_of[x * ROW + i] = (uint16_t)((k ? sums_of[x * ROW + i] : 0) + from[x * DETAIL + i]);
            }
            for (int i = 0; i < 3; i++) {
                sums_of[i - 3] = sums_of[i];
                sums_of[w * ROW + i] = sums_of[w * ROW - 3 + i];
            }
            float *line = r.line[y & 3] + 1;
            memset(line, 0, sizeof(float) * (size_t)width);
            for (int c = 0; c < 3; c++) {
                float *now = means + (size_t)(2 * c + (y & 1)) * (size_t)width;
                const float *before = means + (size_t)(2 * c + !(y & 1)) * (size_t)width;
                for (int x = 0; x < width; x++) {
                    const uint16_t *from = sums_of + 6 * x + c;
                    now[x] = (float)(from[-3] + from[0] + from[3] + from[6]);
                }
                for (int x = 0; x < width; x++) {
                    const float beside = x ? size(now[x] - now[x - 1]) : 0.0f, down = y ? size(now[x] - before[x]) : 0.0f;
                    line[x] = most(line[x], part((most(beside, down) * (1.0f / (16.0f * 255.0f)) - 0.05f) * 8.0f));
                }
            }
        }
        trace_row(&r, y, height, width, wide, drawn, shining);
    }
    for (int i = 0; i < h * w; i++) {
        int sums[2] = {0, 0};
        const ptrdiff_t first = (ptrdiff_t)(i / w) * 4 * width + i % w * 4;
        for (int k = 0; k < 16; k++) {
            sums[0] += drawn[first + k / 4 * width + k % 4];
            sums[1] += shining[first + k / 4 * width + k % 4];
        }
        shares[2 * i] = (float)sums[0] * (1.0f / (16.0f * 255.0f));
        shares[2 * i + 1] = (float)sums[1] * (1.0f / (16.0f * 255.0f));
    }
    free(memory);
    free(column);
    return 0;
}
