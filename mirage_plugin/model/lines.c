/* The lines of a frame, as `compose` draws them: `depth_lines`, `colour_lines` and `trace_lines` of
 * mirage_kernels/lines.py in one pass over the rows. There stands why; here is only how.
 *
 * Threads share bands of rows (crew.h). What a row comes to hangs on few rows before it and behind it: each band begins
 * with some before its first, which are worked out for its sake alone.
 */
#include "crew.h"
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DETAIL = 192, BAND = 64, BEFORE = 8 };
static const float NEAREST = 1e-3f, SKY = 900.0f, EVEN = 2e-4f;
static const float PARTED = 18.0f, CORNER = 1.0f, APART = 9.0f, ALIKE = 1.01f, BENT = 4.0f;

static inline float most(float a, float b) { return a > b ? a : b; }
static inline float size(float a) { return a < 0.0f ? -a : a; }
static inline float part(float a) { return a > 0.0f ? a < 1.0f ? a : 1.0f : 0.0f; }

/* Rows of a field under way, each of `width` values and one of zero on either side. */
struct rows {
    float *line[4], *across[4], *around[4], *sums[4], *nothing;
};

static size_t row_floats(int width) { return (size_t)width + 2; }

/* Row y has come into `line`; what can be known of rows before it goes on to where it is drawn: row y - 2, if it is not
 * before `first`. */
static void trace_row(struct rows *r, int y, int first, int height, int width, float wide, uint8_t *drawn,
                      uint8_t *shining)
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
    if (at < first || at >= height) return;
    const float *line = r->line[at & 3] + 1, *around = r->around[at & 3] + 1, *here = r->sums[at & 3] + 1;
    const float *above = (at > 0 ? r->sums[(at - 1) & 3] : r->nothing) + 1;
    const float *below = (at + 1 < height ? r->sums[(at + 1) & 3] : r->nothing) + 1;
    /* A byte may alias anything, unless it is said not to. */
    uint8_t *restrict drawn_row = drawn + (ptrdiff_t)at * width, *restrict shining_row = shining + (ptrdiff_t)at * width;
    for (int x = 0; x < width; x++) drawn_row[x] = (uint8_t)(int)((line[x] + wide * (around[x] - line[x])) * 255.0f + 0.5f);
    for (int x = 0; x < width; x++)
        shining_row[x] = (uint8_t)(int)(most(line[x], (above[x] + here[x] + below[x]) * (0.7f / 9.0f)) * 255.0f + 0.5f);
}

static int bands_of(int height) { return (height + BAND - 1) / BAND; }

/* Where memory is short the first thread takes all that is left of a phase, and does none of it; others leave it alone. */
static int give_up(struct crew *crew, int bands)
{
    if (crew->me != 0) return -1;
    while (take(crew, bands) >= 0) done(crew);
    together(crew, bands);
    return -1;
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

/* Where 1/z turns by `t[0]` to `t[3]` in a row of points from two before each to one behind it, of 1/z `here`, which
 * slopes by `s[0]` to the point before each and by `s[1]` to the one behind it. */
static void turn_row(const float *const t[4], const float *const s[2], const float *restrict here, int width, float height,
                     float *restrict line)
{
    for (int x = 0; x < width; x++) {
        const float depth = 1.0f / here[x], scale = height * depth, part_of = size(t[2][x]), pair = size(t[1][x] + t[2][x]);
        const float before = size(t[0][x] + t[1][x]), after = size(t[2][x] + t[3][x]);
        const float bent = part(pair / most(size(s[0][x]) + size(s[1][x]), 1e-12f) * BENT - 2.4f);
        const float corner = (pair * scale * CORNER - 0.45f) * bent, parted = part_of * depth * PARTED - 0.36f;
        const int is = (pair > before * ALIKE) & (pair * ALIKE >= after) & (most(part_of, size(t[1][x])) * scale < APART);
        const float drawn = most(is ? corner : 0.0f, parted);
        line[x] = most(line[x], drawn);
    }
}

/* `depth` metres, rows `pitch` floats apart; of each of `height` x `width` points the display's pixel at `rows`,
 * `columns` (null: they are the same). `drawn`, `shining` [height, width] out. Returns -1 where memory is short. Shared as
 * in crew.h, in one phase; a thread that comes late reads nothing. */
int mirage_depth_lines(struct phase *phases, int me, int threads, const float *depth, ptrdiff_t pitch, const int32_t *rows, const int32_t *columns, int height,
                       int width, float wide, uint8_t *drawn, uint8_t *shining)
{
    struct crew crew = {phases, me, threads};
    struct rows r;
    const size_t padded = (size_t)width + 3;
    float *memory = begin_rows(&r, width, 12 * (size_t)width + 2 * padded);
    if (!memory) return give_up(&crew, bands_of(height));
    float *inverse[4], *down[4], *slope_down[4], *beside = memory + 17 * row_floats(width), *across = beside + 2;
    float *slope_across = across + padded;
    for (int i = 0; i < 4; i++) {
        inverse[i] = beside + 2 * padded + (size_t)i * (size_t)width;
        down[i] = inverse[i] + 4 * (size_t)width;
        slope_down[i] = down[i] + 4 * (size_t)width;
    }
    for (int band; (band = take(&crew, bands_of(height))) >= 0; done(&crew)) {
        const int first = band * BAND, last = first + BAND < height ? first + BAND : height;
        const int begin = first > BEFORE ? first - BEFORE : 0;
        for (int y = begin; y < begin + 2 && y < height; y++)
            invert_row(depth + (rows ? rows[y] : y) * pitch, columns, width, inverse[y & 3]);
        /* What is before the first row of all is not known: no line. */
        memset(down[0], 0, 8 * sizeof(float) * (size_t)width);
        for (int y = begin; y < last + 2; y++) {
            if (y + 2 < height) invert_row(depth + (rows ? rows[y + 2] : y + 2) * pitch, columns, width, inverse[(y + 2) & 3]);
            if (y < height) {
                const float *here = inverse[y & 3];
                float *restrict line = r.line[y & 3] + 1, *restrict turn = down[(y + 1) & 3], *restrict slope = slope_down[(y + 1) & 3];
                /* At the field's edge nobody knows what is beside: no line. */
                if (y + 2 < height) {
                    const float *above = here, *middle = inverse[(y + 1) & 3], *below = inverse[(y + 2) & 3];
                    for (int x = 0; x < width; x++) turn[x] = above[x] + below[x] - 2.0f * middle[x];
                } else
                    memset(turn, 0, sizeof(float) * (size_t)width);
                if (y + 1 < height) {
                    const float *below = inverse[(y + 1) & 3];
                    for (int x = 0; x < width; x++) slope[x] = below[x] - here[x];
                } else
                    memset(slope, 0, sizeof(float) * (size_t)width);
                for (int x = 1; x < width - 1; x++) across[x] = here[x - 1] + here[x + 1] - 2.0f * here[x];
                for (int x = 1; x < width; x++) slope_across[x] = here[x] - here[x - 1];
                memset(line, 0, sizeof(float) * (size_t)width);
                turn_row((const float *const[]){across - 2, across - 1, across, across + 1},
                         (const float *const[]){slope_across - 1, slope_across + 1}, here, width, (float)height, line);
                turn_row((const float *const[]){down[(y + 2) & 3], down[(y + 3) & 3], down[y & 3], turn},
                         (const float *const[]){slope_down[(y + 3) & 3], slope}, here, width, (float)height, line);
                for (int x = 0; x < width; x++) line[x] = here[x] > 1.0f / SKY ? most(0.0f, line[x] < 1.0f ? line[x] : 1.0f) : 0.0f;
            }
            trace_row(&r, y, first, height, width, wide, drawn, shining);
        }
    }
    together(&crew, bands_of(height));
    free(memory);
    return 0;
}

/* Rows of the search for where colours part: `sums` of three pixels beside one another, means of 3x3 of them, how much
 * those part across and down. Each has one value more on either side. */
struct search {
    uint8_t *packed;
    float *row[3], *sums[3][4], *means[3][4], *across[4], *down[4];
};

/* Sums of row y of the working frame. */
static void sum_row(struct search *s, const uint8_t *cells, int y, int w)
{
    const int width = 8 * w;
    const uint8_t *from = cells + (ptrdiff_t)(y / 8) * w * DETAIL + y % 8 * 24;
    uint8_t *restrict packed = s->packed;
    for (int x = 0; x < w; x++) memcpy(packed + 24 * x, from + x * DETAIL, 24);
    float *restrict red = s->row[0] + 1, *restrict green = s->row[1] + 1, *restrict blue = s->row[2] + 1;
    for (int x = 0; x < width; x++) {
        red[x] = packed[3 * x];
        green[x] = packed[3 * x + 1];
        blue[x] = packed[3 * x + 2];
    }
    for (int c = 0; c < 3; c++) {
        float *row = s->row[c] + 1, *restrict sums = s->sums[c][y & 3] + 1;
        row[-1] = row[0];
        row[width] = row[width - 1];
        for (int x = 0; x < width; x++) sums[x] = row[x - 1] + row[x] + row[x + 1];
    }
}

static void mean_row(struct search *s, int y, int height, int width)
{
    for (int c = 0; c < 3; c++) {
        float *const *sums = s->sums[c];
        const float *above = sums[(y ? y - 1 : 0) & 3], *here = sums[y & 3], *below = sums[(y + 1 < height ? y + 1 : y) & 3];
        float *restrict means = s->means[c][y & 3];
        for (int x = 1; x <= width; x++) means[x] = (above[x] + here[x] + below[x]) * (1.0f / (9.0f * 255.0f));
    }
}

static void part_row(struct search *s, int y, int height, int width)
{
    float *restrict across = s->across[y & 3] + 1, *restrict down = s->down[y & 3] + 1;
    memset(across, 0, sizeof(float) * (size_t)width);
    memset(down, 0, sizeof(float) * (size_t)width);
    for (int c = 0; c < 3; c++) {
        float *const *means = s->means[c];
        const float *here = means[y & 3] + 1, *above = means[(y + 3) & 3] + 1, *below = means[(y + 1) & 3] + 1;
        for (int x = 1; x < width - 1; x++) across[x] = most(size(here[x + 1] - here[x - 1]), across[x]);
        if (y > 0 && y + 1 < height)
            for (int x = 0; x < width; x++) down[x] = most(size(below[x] - above[x]), down[x]);
    }
}

/* Where they part most, across or down. */
static void thin_row(const struct search *s, int y, int height, int width, const float *nothing, float *restrict line)
{
    const float *across = s->across[y & 3] + 1, *down = s->down[y & 3] + 1;
    const float *above = (y > 0 ? s->down[(y - 1) & 3] : nothing) + 1, *below = (y + 1 < height ? s->down[(y + 1) & 3] : nothing) + 1;
    /* Three loops, of which each becomes vectors: together they do not. */
    for (int x = 0; x < width; x++) line[x] = across[x] > most(across[x - 1] - EVEN, across[x + 1] + EVEN) ? across[x] : 0.0f;
    for (int x = 0; x < width; x++) {
        const float here = down[x] > most(above[x] - EVEN, below[x] + EVEN) ? down[x] : 0.0f;
        line[x] = most(here, line[x]);
    }
    for (int x = 0; x < width; x++) line[x] = part((line[x] - 0.05f) * 8.0f);
}

/* Of bytes `cells` [h, w, 192] `drawn`, `shining` [8h, 8w] out, and `shares` [h, w, 2] of each cell that they cover.
 * Returns -1 where memory is short. Shared as in crew.h, in two phases; a thread that comes late reads nothing. */
int mirage_colour_lines(struct phase *phases, int me, int threads, const uint8_t *cells, int h, int w, float wide, uint8_t *drawn, uint8_t *shining, float *shares)
{
    const int height = 8 * h, width = 8 * w;
    struct crew crew = {phases, me, threads};
    struct rows r;
    struct search s;
    float *memory = begin_rows(&r, width, 36 * row_floats(width));
    if (!memory) {
        give_up(&crew, bands_of(height));
        return give_up(&crew, h);
    }
    float *free_rows = memory + 17 * row_floats(width);
    for (int c = 0; c < 3; c++) s.row[c] = free_rows + (size_t)c * row_floats(width);
    s.packed = (uint8_t *)(free_rows + 3 * row_floats(width));
    for (int i = 0; i < 4; i++) {
        float *from = free_rows + (size_t)(4 + 8 * i) * row_floats(width);
        for (int c = 0; c < 3; c++) {
            s.sums[c][i] = from + (size_t)c * row_floats(width);
            s.means[c][i] = from + (size_t)(3 + c) * row_floats(width);
        }
        s.across[i] = from + 6 * row_floats(width);
        s.down[i] = from + 7 * row_floats(width);
    }
    /* A row is known as far as its neighbours are: each step is a row behind the one before it. */
    for (int band; (band = take(&crew, bands_of(height))) >= 0; done(&crew)) {
        const int first = band * BAND, last = first + BAND < height ? first + BAND : height;
        for (int y = first > BEFORE ? first - BEFORE : 0; y < last + 5; y++) {
            if (y < height) sum_row(&s, cells, y, w);
            if (y >= 1 && y - 1 < height) mean_row(&s, y - 1, height, width);
            if (y >= 2 && y - 2 < height) part_row(&s, y - 2, height, width);
            const int at = y - 3;
            if (at >= 0 && at < height) thin_row(&s, at, height, width, r.nothing, r.line[at & 3] + 1);
            if (at >= 0) trace_row(&r, at, first, height, width, wide, drawn, shining);
        }
    }
    together(&crew, bands_of(height));
    uint16_t *columns = (uint16_t *)free_rows;
    for (int y; (y = take(&crew, h)) >= 0; done(&crew))
        for (int which = 0; which < 2; which++) {
            memset(columns, 0, sizeof(uint16_t) * (size_t)width);
            for (int i = 0; i < 8; i++) {
                const uint8_t *from = (which ? shining : drawn) + (ptrdiff_t)(8 * y + i) * width;
                for (int x = 0; x < width; x++) columns[x] = (uint16_t)(columns[x] + from[x]);
            }
            for (int x = 0; x < w; x++) {
                int total = 0;
                for (int i = 0; i < 8; i++) total += columns[8 * x + i];
                shares[2 * (y * w + x) + which] = (float)total * (1.0f / (64.0f * 255.0f));
            }
        }
    together(&crew, h);
    free(memory);
    return 0;
}
