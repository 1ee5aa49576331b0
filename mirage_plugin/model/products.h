/* Products of a group of cells with a layer's weights, in one of two ways.
 *
 * Where the processor has a matrix unit (AMX), activations and weights are bf16 and sums are fp32, in tiles of 16 rows by 16
 * outputs. Everywhere else all is fp32, and ROWS x 16 sums (or twice that with AVX-512) stay in registers while the
 * inputs go by: on AVX2 12 multiply-adds for 2 loads of weights and 6 of activations, so that the multipliers never wait.
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

#if MIRAGE_TILES
#include <sys/syscall.h>
#include <unistd.h>
typedef uint16_t number;
/* Cells that pass through a block together; inputs of a layer are padded to INPUTS with weights of zero. */
enum { GROUP = 32, INPUTS = 32 };
#else
typedef float number;
enum { GROUP = 2 * ROWS < 24 ? 24 : 48, INPUTS = 4 };
#endif

/* A layer [outputs, inputs], packed for every 16 outputs. bf16: for every 32 inputs, 16 rows of 16 pairs of inputs. fp32:
 * for every input its 16 weights. */
struct linear {
    const void *weight;
    const float *bias; /* padded(outputs, 16) */
    int inputs, outputs;
};

/* Which packing: 0 fp32, 1 bf16. */
int mirage_core_layout(void) { return MIRAGE_TILES; }

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

/* Whether the system gives this process the matrix unit (ARCH_REQ_XCOMP_PERM of XTILEDATA): to be asked before the rest. */
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
    _tile_loadconfig(&tiles);
}

static void end_products(void) { _tile_release(); }

/* out[r][n] = bias[n] + sum over k of a[r][k] * weight[n][k], for at least `count` rows of `a` (`a_stride` numbers apart).
 * `a` may hold anything finite where inputs are padded; outputs are padded to 16. */
static void product(const number *a, int a_stride, int count, const struct linear *l, float *out, int out_stride)
{
    const int steps = padded(l->inputs, 32) / 32, columns = padded(l->outputs, 16) / 16;
    const long a_bytes = 2L * a_stride, out_bytes = 4L * out_stride;
    const uint16_t *weight = l->weight;
    int n = 0;
    (void)count;
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

/* ROWS rows by `vectors` of outputs; the loops over rows and vectors are unrolled, their sums stay in registers. */
static inline __attribute__((always_inline)) void
tile(const float *a, int a_stride, const float *weight, int inputs, const float *bias, float *out, int out_stride, const int vectors)
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

/* out[r][n] = bias[n] + sum over k of a[r][k] * weight[n][k], for at least `count` rows of `a` (`a_stride` numbers apart).
 * `a` may hold anything finite where inputs are padded; outputs are padded to 16. The weights of 16 outputs stay in
 * the nearest cache while all rows pass. */
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
