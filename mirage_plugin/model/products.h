/* Products of a group of cells with a layer's weights, in one of three ways.
 *
 * Where the processor has a matrix unit (AMX), activations and weights are bf16 and sums are fp32, in tiles of 16 rows
 * by 16 outputs. Where its vectors multiply and add more 16-bit integers than floats, both are rounded to such
 * integers, each row and each output with a scale of its own, and sums are integers. Everywhere else all is fp32. In
 * both of the latter ROWS x 16 sums (or twice that with AVX-512) stay in registers while the inputs go by: on AVX2 12
 * multiply-adds for 2 loads of weights and 6 of activations, so that the multipliers never wait.
 *
 * Activations of a group are rows of `number`s; `put` writes a vector of floats into one.
 */
#ifndef MIRAGE_PRODUCTS_H
#define MIRAGE_PRODUCTS_H
#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__) && !defined(MIRAGE_VECTORS_ONLY)
#define MIRAGE_TILES 1
#else
#define MIRAGE_TILES 0
#endif
/* AVX-512 without VNNI gains nothing: there too a multiplication and an addition take the place of one of both. */
#if !MIRAGE_TILES && !defined(MIRAGE_FLOATS_ONLY) && defined(__AVX2__) \
    && (!defined(__AVX512F__) || defined(__AVX512VNNI__))
#define MIRAGE_INTEGERS 1
#else
#define MIRAGE_INTEGERS 0
#endif

#if MIRAGE_TILES
#include <sys/syscall.h>
#include <unistd.h>
typedef uint16_t number;
/* Cells that pass through a block together; inputs of a layer are padded to INPUTS with weights of zero. */
enum { GROUP = 32, INPUTS = 32 };
#else
typedef float number;
enum { GROUP = 2 * ROWS < 24 ? 24 : 48, INPUTS = MIRAGE_INTEGERS ? 16 : 4 };
#endif

/* A layer [outputs, inputs], packed for every 16 outputs. bf16: for every 32 inputs, 16 rows of 16 pairs of inputs.
 * fp32: for every input its 16 weights. int16: for every two inputs, 16 pairs of weights. */
struct linear {
    const void *weight;
    const float *bias, *scale; /* padded(outputs, 16); int16: what a weight's unit is */
    int inputs, outputs;
};

/* Which packing: 0 fp32, 1 bf16, 2 int16. */
int mirage_core_layout(void) { return MIRAGE_TILES + 2 * MIRAGE_INTEGERS; }

/* Activations are rounded to whole numbers from -LEVELS to LEVELS. native_core.py makes an output's weights whole
 * numbers w[k] of which sum over k of |w[k]| <= (2^31 - 1) / LEVELS, so that no sum over some of the inputs can
 * leave 32 bits, whatever their number and order: |sum a[k] w[k]| <= LEVELS * sum |w[k]|. */
enum { LEVELS = 8191 };
int mirage_core_levels(void) { return LEVELS; }

#if MIRAGE_TILES

static inline void put(number *out, vec x)
{
    __m256bh half = _mm512_cvtneps_pbh((__m512)x);
    memcpy(out, &half, 32);
}

static inline number to_number(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* Whether the system gives this process the matrix unit (ARCH_REQ_XCOMP_PERM of XTILEDATA): to be asked before the
 * rest. */
int mirage_core_unit(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

static void begin_products(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t columns[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.columns[i] = 64;
        tiles.rows[i] = 16;
    }
    /* Not `_tile_loadconfig`: to GCC before 14 it reads eight bytes, and what was stored in the others may be left out. */
    __asm__ volatile("ldtilecfg %0" : : "m"(tiles));
}

static void end_products(void) { _tile_release(); }

/* out[r][n] = bias[n] + sum over k of a[r][k] * weight[n][k], for at least `count` rows of `a` (`a_stride` numbers
 * apart). `a` may hold anything finite where inputs are padded; outputs are padded to 16. */
static void product(const number *a, int a_stride, int count, const struct linear *l, float *out, int out_stride)
{
    const int steps = padded(l->inputs, 32) / 32, columns = padded(l->outputs, 16) / 16;
    const long a_bytes = 2L * a_stride, out_bytes = 4L * out_stride;
    const uint16_t *weight = l->weight;
    int n = 0;
    (void)count;
    /* To the compiler a tile's load reads nothing: what was written before is there. */
    __asm__ volatile("" : : : "memory");
    for (; n + 2 <= columns; n += 2) {
        const uint16_t *b = weight + (ptrdiff_t)n * steps * 512, *c = b + (ptrdiff_t)steps * 512;
        _tile_loadd(0, l->bias + n * 16, 0);
        _tile_loadd(1, l->bias + n * 16 + 16, 0);
        _tile_loadd(2, l->bias + n * 16, 0);
        _tile_loadd(3, l->bias + n * 16 + 16, 0);
        for (int k = 0; k < steps; k++) {
            _tile_loadd(4, a + k * 32, a_bytes);
            _tile_loadd(6, b + (ptrdiff_t)k * 512, 64);
            _tile_loadd(7, c + (ptrdiff_t)k * 512, 64);
            _tile_loadd(5, a + 16 * a_stride + k * 32, a_bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, out + n * 16, out_bytes);
        _tile_stored(1, out + n * 16 + 16, out_bytes);
        _tile_stored(2, out + 16 * out_stride + n * 16, out_bytes);
        _tile_stored(3, out + 16 * out_stride + n * 16 + 16, out_bytes);
    }
    if (n < columns) {
        const uint16_t *b = weight + (ptrdiff_t)n * steps * 512;
        _tile_loadd(0, l->bias + n * 16, 0);
        _tile_loadd(2, l->bias + n * 16, 0);
        for (int k = 0; k < steps; k++) {
            _tile_loadd(4, a + k * 32, a_bytes);
            _tile_loadd(6, b + (ptrdiff_t)k * 512, 64);
            _tile_loadd(5, a + 16 * a_stride + k * 32, a_bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
        }
        _tile_stored(0, out + n * 16, out_bytes);
        _tile_stored(2, out + 16 * out_stride + n * 16, out_bytes);
    }
}

#else

static inline void put(number *out, vec x) { store(out, x); }
static inline number to_number(float x) { return x; }
int mirage_core_unit(void) { return 0; }
static void begin_products(void) {}
static void end_products(void) {}

#if MIRAGE_INTEGERS

/* sum += x * w of two 16-bit integers each; in assembler for what ADD_PRODUCT is. */
#if defined(__AVX512VNNI__)
#define ADD_PAIRS(sum, x, w) __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w))
#elif defined(__AVXVNNI__)
#define ADD_PAIRS(sum, x, w) __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w))
#else
#define ADD_PAIRS(sum, x, w)                                                                                       \
    do {                                                                                                           \
        ints both;                                                                                                 \
        __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(both) : "x"(x), "x"(w));             \
    } while (0)
#endif

static inline ints larger(ints a, ints b) { return ((a > b) & a) | (~(a > b) & b); }
static inline ints pairs_at(const int32_t *p) { return *(const ints *)p; }

static inline int32_t largest_of(ints x)
{
#ifdef __AVX512F__
    return _mm512_reduce_max_epi32((__m512i)x);
#else
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
#endif
}

/* Rows in whole numbers, and what each one's unit is. For every ROWS rows, for every 16 inputs, lie 8 pairs of each
 * row: so that a tile goes through them by one address. The unit of a row with something in it that is not finite is
 * NaN, and its numbers say nothing: its products are NaN whatever they are. */
static inline void round_rows(const float *a, int a_stride, int count, int inputs, int32_t *pairs, float *units)
{
    int32_t most[GROUP] = {0};
    float up[GROUP];
    for (int r = 0; r < count; r++) {
        /* Without their signs floats are in the order of their bits, and infinities and NaN come last. */
        const float *row = a + (ptrdiff_t)r * a_stride;
        ints size = {0};
        for (int k = 0; k < inputs; k += 16)
#pragma GCC unroll 2
            for (int i = 0; i < 16; i += LANES) size = larger(size, (ints)load(row + k + i) & 0x7fffffff);
        most[r] = largest_of(size);
    }
    for (int r = 0; r < GROUP; r += LANES) {
        /* What is too small for its reciprocal to be finite is nothing. */
        const ints bits = *(const ints *)(most + r), finite = bits < 0x7f800000, some = (vec)bits > 1e-30f;
        store(up + r, (vec)(some & (ints)((float)LEVELS / (vec)bits)));
        store(units + r, choose(finite, (vec)(some & (ints)((vec)bits * (1.0f / (float)LEVELS))),
                                all(__builtin_nanf(""))));
    }
    for (int r = 0; r < padded(count, ROWS); r++) {
        /* The last rows may be there only to make ROWS of them. */
        const float *row = a + (ptrdiff_t)(r < count ? r : 0) * a_stride;
        int32_t *to = pairs + (ptrdiff_t)(r / ROWS) * ROWS * (inputs / 2) + r % ROWS * 8;
        const float by = up[r];
        for (int k = 0; k < inputs; k += 16, to += ROWS * 8) {
#ifdef __AVX512F__
            const __m512i whole = _mm512_cvtps_epi32((__m512)(load(row + k) * by));
            _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(whole));
#else
            const __m256i left = _mm256_cvtps_epi32((__m256)(load(row + k) * by));
            const __m256i right = _mm256_cvtps_epi32((__m256)(load(row + k + 8) * by));
            _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_packs_epi32(left, right), 0xd8));
#endif
        }
    }
}

/* ROWS rows by `vectors` of outputs; the loops over rows and vectors are unrolled, their sums stay in registers. */
static inline __attribute__((always_inline)) void
tile(const int32_t *a, const float *units, const struct linear *l, int n, int pairs, float *out, int out_stride,
     const int vectors)
{
    const ptrdiff_t panel = 16 * (ptrdiff_t)pairs;
    const int32_t *weight = (const int32_t *)l->weight + (ptrdiff_t)n * pairs;
    ints sums[ROWS][VECTORS];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sums[r][v] = (ints){0};
#pragma GCC unroll 1
    for (int k = 0; k < pairs; k += 8, a += ROWS * 8, weight += 16 * 8)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            ints w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                w[v] = pairs_at(weight + i * 16 + v * LANES / 16 * panel + v * LANES % 16);
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
                const ints x = a[r * 8 + i] - (ints){0};
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) ADD_PAIRS(sums[r][v], x, w[v]);
            }
        }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        const vec scale = load(l->scale + n + v * LANES), bias = load(l->bias + n + v * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++)
            store(out + (ptrdiff_t)r * out_stride + v * LANES,
                  __builtin_convertvector(sums[r][v], vec) * units[r] * scale + bias);
    }
}

/* out[r][n] = bias[n] + sum over k of a[r][k] * weight[n][k], for at least `count` rows of `a` (`a_stride` numbers
 * apart). `a` holds zeros where inputs are padded; outputs are padded to 16. */
static void product(const number *a, int a_stride, int count, const struct linear *l, float *out, int out_stride)
{
    enum { WIDTH = VECTORS * LANES };
    const int pairs = padded(l->inputs, INPUTS) / 2, outputs = padded(l->outputs, 16);
    int32_t rows[GROUP * pairs] __attribute__((aligned(64)));
    float units[GROUP];
    round_rows(a, a_stride, count, 2 * pairs, rows, units);
    int n = 0;
    for (; n + WIDTH <= outputs; n += WIDTH)
        for (int r = 0; r < count; r += ROWS)
            tile(rows + (ptrdiff_t)r * pairs, units + r, l, n, pairs, out + (ptrdiff_t)r * out_stride + n, out_stride,
                 VECTORS);
    for (; WIDTH > 16 && n < outputs; n += 16)
        for (int r = 0; r < count; r += ROWS)
            tile(rows + (ptrdiff_t)r * pairs, units + r, l, n, pairs, out + (ptrdiff_t)r * out_stride + n, out_stride,
                 16 / LANES);
}

#else

/* ROWS rows by `vectors` of outputs; the loops over rows and vectors are unrolled, their sums stay in registers. */
static inline __attribute__((always_inline)) void
tile(const float *a, int a_stride, const float *weight, int inputs, const float *bias, float *out, int out_stride,
     const int vectors)
{
    const ptrdiff_t panel = 16 * (ptrdiff_t)inputs;
    vec sums[ROWS][VECTORS];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sums[r][v] = load(bias + v * LANES);
    for (int k = 0; k < inputs; k += INPUTS)
#pragma GCC unroll 4
        for (int i = 0; i < INPUTS; i++) {
            vec w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                w[v] = load(weight + (k + i) * 16 + v * LANES / 16 * panel + v * LANES % 16);
#pragma GCC unroll 12
            for (int r = 0; r < ROWS; r++) {
                vec x = all(a[(ptrdiff_t)r * a_stride + k + i]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) ADD_PRODUCT(sums[r][v], x, w[v]);
            }
        }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) store(out + (ptrdiff_t)r * out_stride + v * LANES, sums[r][v]);
}

/* out[r][n] = bias[n] + sum over k of a[r][k] * weight[n][k], for at least `count` rows of `a` (`a_stride` numbers
 * apart). `a` may hold anything finite where inputs are padded; outputs are padded to 16. The weights of 16 outputs
 * stay in the nearest cache while all rows pass. */
static void product(const number *a, int a_stride, int count, const struct linear *l, float *out, int out_stride)
{
    enum { WIDTH = VECTORS * LANES };
    const int inputs = padded(l->inputs, INPUTS), outputs = padded(l->outputs, 16);
    const float *weight = l->weight;
    int n = 0;
    for (; n + WIDTH <= outputs; n += WIDTH)
        for (int r = 0; r < count; r += ROWS)
            tile(a + (ptrdiff_t)r * a_stride, a_stride, weight + (ptrdiff_t)n * inputs, inputs, l->bias + n,
                 out + (ptrdiff_t)r * out_stride + n, out_stride, VECTORS);
    for (; WIDTH > 16 && n < outputs; n += 16)
        for (int r = 0; r < count; r += ROWS)
            tile(a + (ptrdiff_t)r * a_stride, a_stride, weight + (ptrdiff_t)n * inputs, inputs, l->bias + n,
                 out + (ptrdiff_t)r * out_stride + n, out_stride, 16 / LANES);
}

#endif
#endif
#endif
