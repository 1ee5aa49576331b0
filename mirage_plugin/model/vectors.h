/* Vectors of floats as wide as this processor's, and the few functions of them that a network needs: written with the
 * vector extensions of GCC and Clang. NaN goes in and comes out everywhere, for it has to be seen at the end.
 */
#ifndef MIRAGE_VECTORS_H
#define MIRAGE_VECTORS_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

/* ROWS x VECTORS sums are what a product keeps in registers; see products.h. */
#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 12, VECTORS = 2 };
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 6, VECTORS = 2 };
#elif defined(__aarch64__)
enum { LANES = 4, ROWS = 6, VECTORS = 4 };
#else
enum { LANES = 4, ROWS = 3, VECTORS = 4 };
#endif

/* aligned(4), aligned(1): read and written anywhere. */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t unsigned_ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1)));

/* Eight of them, whatever the processor's width: a cell is eight pixels wide. */
typedef float f8 __attribute__((vector_size(32), aligned(4)));
typedef int32_t i8 __attribute__((vector_size(32), aligned(4)));

static inline f8 load8(const float *p) { return *(const f8 *)p; }
static inline f8 in_order(f8 a, i8 which)
{
#ifdef __clang__
    f8 out;
    for (int i = 0; i < 8; i++) out[i] = a[which[i]];
    return out;
#else
    return __builtin_shuffle(a, which);
#endif
}

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec x) { *(vec *)p = x; }
/* Minus zero, not plus: that would have to make 0 of -0, and cost an addition. */
static inline vec all(float x) { return x - (vec){0}; }
static inline int padded(int n, int to) { return (n + to - 1) / to * to; }
static inline vec from_bytes(const uint8_t *p)
{
#if defined(__AVX512F__)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif defined(__AVX2__)
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const bytes *)p, ints), vec);
#endif
}

/* sum += x * w, of vectors of any one size, in the register that the sum is in. Said in assembler because GCC (12)
 * else puts the sum where x was, runs out of registers, and every fourth sum waits for its way through memory: half
 * the speed. */
#ifdef __FMA__
#define ADD_PRODUCT(sum, x, w) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w))
#else
#define ADD_PRODUCT(sum, x, w) ((sum) += (x) * (w))
#endif

static inline vec choose(ints which, vec yes, vec no) { return (vec)((which & (ints)yes) | (~which & (ints)no)); }

/* The smaller and the larger of two; where `x` is NaN that comes out. */
#if defined(__AVX512F__)
static inline vec lesser(vec limit, vec x) { return (vec)_mm512_min_ps((__m512)limit, (__m512)x); }
static inline vec greater(vec limit, vec x) { return (vec)_mm512_max_ps((__m512)limit, (__m512)x); }
#elif defined(__AVX__)
static inline vec lesser(vec limit, vec x) { return (vec)_mm256_min_ps((__m256)limit, (__m256)x); }
static inline vec greater(vec limit, vec x) { return (vec)_mm256_max_ps((__m256)limit, (__m256)x); }
#else
static inline vec lesser(vec limit, vec x) { return choose(limit < x, limit, x); }
static inline vec greater(vec limit, vec x) { return choose(limit > x, limit, x); }
#endif

static inline vec clamp(vec x, float low, float high) { return lesser(all(high), greater(all(low), x)); }

/* 1 / x, to what a float holds: an estimate and one step of Newton's, for a division waits five times as long. Where
 * the products are bf16 the estimate is enough. x is not 0, and below 1e38. */
static inline vec reciprocal(vec x)
{
#if defined(__AVX512F__)
    vec y = (vec)_mm512_rcp14_ps((__m512)x);
#if defined(__AMX_BF16__) && !defined(MIRAGE_VECTORS_ONLY)
    return y;
#endif
    return y * (2.0f - x * y);
#elif defined(__AVX__)
    vec y = (vec)_mm256_rcp_ps((__m256)x);
    return y * (2.0f - x * y);
#else
    return 1.0f / x;
#endif
}

/* 1 / x of eight, to a part in 3000 at least; and as `reciprocal`. */
static inline f8 estimate8(f8 x)
{
#if defined(__AVX__)
    return (f8)_mm256_rcp_ps((__m256)x);
#else
    return 1.0f / x;
#endif
}
static inline f8 reciprocal8(f8 x)
{
    const f8 y = estimate8(x);
    return y * (2.0f - x * y);
}

/* The root, to what a float holds, by an estimate and one step as well. x is above 0, and below 1e38. */
static inline vec root(vec x)
{
#if defined(__AVX__)
#if defined(__AVX512F__)
    const vec y = (vec)_mm512_rsqrt14_ps((__m512)x);
#else
    const vec y = (vec)_mm256_rsqrt_ps((__m256)x);
#endif
    const vec r = x * y;
    return r + 0.5f * y * (x - r * r);
#else
    for (int i = 0; i < LANES; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

/* exp to some parts in 10^7 of numbers that a network says (a part in 10^5 at its ends), within e^-87 and e^87: as a
 * power of two, the whole part of which goes straight to the exponent's bits. */
static inline vec exponential(vec x)
{
    x = clamp(x * 1.44269504f, -125.5f, 125.5f);
    const vec shifted = x + 12582912.0f, r = x - (shifted - 12582912.0f);
    vec p = all(1.32669704e-03f);
    p = p * r + 9.67545975e-03f;
    p = p * r + 5.55074262e-02f;
    p = p * r + 2.40221218e-01f;
    p = p * r + 6.93146949e-01f;
    p = p * r + 1.00000007e+00f;
    return p * (vec)(((unsigned_ints)shifted + 127u) << 23);
}

static inline vec sigmoid(vec x) { return reciprocal(1.0f + exponential(-x)); }
static inline vec hyperbolic_tangent(vec x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

/* The largest whole number that is not above x; x itself where a float has no fractions, and where it is NaN. */
static inline vec whole_below(vec x)
{
    vec cut = __builtin_convertvector(__builtin_convertvector(clamp(x, -8388608.0f, 8388608.0f), ints), vec);
    cut = cut - (vec)((ints)all(1.0f) & (cut > x));
    return choose((x > -8388608.0f) & (x < 8388608.0f), cut, x);
}

static inline float sum(vec x)
{
    float part[LANES];
    store(part, x);
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) part[i] += part[i + n];
    return part[0];
}
#endif
