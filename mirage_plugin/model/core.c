/* The network on a processor: one step from a frame's cells to its edit, what `Core.forward` in core.py computes.
 *
 * A group of 32 cells passes through a whole block while it lies in the nearest caches: depthwise, norm and FiLM, expand,
 * SiLU, project, gate. The hidden activation is never in memory. Products take bf16 and add in fp32, on the processor's
 * matrix unit (AMX); everything between them is fp32. On processors without that unit this does not compile, and what
 * PyTorch's compiler makes of `Core` serves instead: in vectors alone the same took three times as long.
 *
 * Counted for nano on 80x48 cells: 0.58 G multiply-adds in products, 0.03 G depthwise, 1 M exponentials.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if !defined(__AMX_BF16__) || !defined(__AVX512BF16__) || !defined(__linux__)
#error "this processor has no matrix unit, or its system does not give it away"
#endif
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* aligned(4): read and written anywhere. */
typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4)));
typedef uint32_t u16 __attribute__((vector_size(64), aligned(4)));

enum { GROUP = 32, BINS = 4, TRANSFORM = 12, COEFFICIENTS = BINS * TRANSFORM, CELL = 192, NOISE = 16, PLANES = 24 };

static inline v16 load(const float *p) { return *(const v16 *)p; }
static inline void store(float *p, v16 x) { *(v16 *)p = x; }
static inline int padded(int n, int to) { return (n + to - 1) / to * to; }

/* A weight [outputs, inputs], packed: for every 16 outputs and 32 inputs, 16 rows of 16 pairs of inputs. */
struct linear {
    const uint16_t *weight;
    const float *bias; /* padded(outputs, 16) */
    int inputs, outputs;
};

struct block {
    const float *taps; /* [25, channels] */
    const float *bias; /* [channels] */
    struct linear expand, project;
};

/* Everything that a tier's weights are; filled by native_core.py, which holds the order. */
struct network {
    int32_t widths[3], depths[5], hidden[3], state, maps;
    struct linear stem, down1, down2, up2, up1, trust, into, keep, candidate, detail;
    const float *head;      /* [48, widths[0]] and [48]: the transforms' own weight and bias */
    const float *head_bias;
    const float *mix;       /* [BINS * maps, widths[0]] and [BINS * maps]: how much of each colour map */
    const float *mix_bias;
    const struct block *blocks;
};

/* ---- small parts -------------------------------------------------------------------------------------------- */

static inline v16 choose(i16 which, v16 yes, v16 no) { return (v16)((which & (i16)yes) | (~which & (i16)no)); }

/* exp to a part in 2^15, more than bf16 and eight bits keep; NaN stays NaN. */
static inline v16 exponential(v16 x)
{
    const v16 zero = {0};
    x = choose(x < -87.0f, zero - 87.0f, x);
    x = choose(x > 87.0f, zero + 87.0f, x);
    v16 n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    v16 r = x - n * 0.69314718f;
    v16 p = zero + 4.1589900e-2f;
    p = p * r + 1.6790647e-1f;
    p = p * r + 5.0002223e-1f;
    p = p * r + 9.9996365e-1f;
    p = p * r + 1.0f;
    return p * (v16)((__builtin_convertvector(n, i16) + 127) << 23);
}

static inline v16 sigmoid(v16 x)
{
    return (v16)_mm512_rcp14_ps((__m512)(1.0f + exponential(-x)));
}

static inline float sum(v16 x)
{
    float total = 0;
    for (int i = 0; i < 16; i++) total += x[i];
    return total;
}

static inline uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline void store_bf16(uint16_t *out, v16 x)
{
    __m256bh half = _mm512_cvtneps_pbh((__m512)x);
    memcpy(out, &half, 32);
}

/* ---- products ----------------------------------------------------------------------------------------------- */

/* Whether the system gives this process the matrix unit (ARCH_REQ_XCOMP_PERM of XTILEDATA): to be asked before the rest. */
int mirage_core_unit(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

static void configure(void)
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

/* out[r][n] = bias[n] + sum over k of a[r][k] * weight[n][k], for 32 rows of `a` (bf16, `a_stride` numbers apart). Inputs are
 * padded to 32 with zeros in the weight, so `a` may hold anything finite there; outputs are padded to 16. */
static void product(const uint16_t *a, int a_stride, const struct linear *l, float *out, int out_stride)
{
    const int steps = padded(l->inputs, 32) / 32, columns = padded(l->outputs, 16) / 16;
    const long a_bytes = 2L * a_stride, out_bytes = 4L * out_stride;
    int n = 0;
    for (; n + 2 <= columns; n += 2) {
        const uint16_t *b = l->weight + (ptrdiff_t)n * steps * 512, *c = b + (ptrdiff_t)steps * 512;
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
        const uint16_t *b = l->weight + (ptrdiff_t)n * steps * 512;
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

/* ---- a grid of activations ---------------------------------------------------------------------------------- */

/* fp32 [h + 4, w + 4, channels], two cells of zeros all around. */
struct grid {
    float *data;
    int h, w, channels;
};

static inline float *at(const struct grid *g, int y, int x)
{
    return g->data + ((ptrdiff_t)(y + 2) * (g->w + 4) + x + 2) * g->channels;
}

struct scratch {
    uint16_t *a, *b; /* [GROUP, widest input] */
    float *y, *z;    /* [GROUP, widest output] */
    int inputs, outputs;
};

/* y of GROUP cells from `first` on: the depthwise convolution. */
static void depthwise(const struct grid *in, const struct block *block, int first, int count, float *out, int stride)
{
    const int channels = in->channels, pitch = (in->w + 4) * channels;
    for (int i = 0; i < count;) {
        int y = (first + i) / in->w, x = (first + i) % in->w;
        /* Four neighbours share the taps. */
        int run = in->w - x < count - i ? in->w - x : count - i;
        run = run >= 4 ? 4 : 1;
        const float *corner = at(in, y - 2, x - 2);
        for (int c = 0; c < channels; c += 16) {
            v16 acc[4];
            for (int r = 0; r < 4; r++) acc[r] = load(block->bias + c);
            for (int dy = 0; dy < 5; dy++)
                if (run == 4) {
                    v16 row[8];
                    for (int t = 0; t < 8; t++) row[t] = load(corner + (ptrdiff_t)dy * pitch + t * channels + c);
                    for (int dx = 0; dx < 5; dx++) {
                        v16 tap = load(block->taps + (dy * 5 + dx) * channels + c);
                        for (int r = 0; r < 4; r++) acc[r] += row[dx + r] * tap;
                    }
                } else
                    for (int dx = 0; dx < 5; dx++)
                        acc[0] += load(corner + (ptrdiff_t)dy * pitch + dx * channels + c)
                                  * load(block->taps + (dy * 5 + dx) * channels + c);
            for (int r = 0; r < run; r++) store(out + (ptrdiff_t)(i + r) * stride + c, acc[r]);
        }
        i += run;
    }
}

/* RMSNorm over channels with FiLM, as bf16. */
static inline void normalise(const float *x, int channels, const float *scale, const float *shift, uint16_t *out)
{
    v16 squares = {0};
    for (int c = 0; c < channels; c += 16) squares += load(x + c) * load(x + c);
    float inverse = 1.0f / __builtin_sqrtf(sum(squares) / (float)channels + 1e-6f);
    for (int c = 0; c < channels; c += 16)
        store_bf16(out + c, load(x + c) * inverse * (1.0f + load(scale + c)) + load(shift + c));
}

static void run_block(const struct block *block, const struct grid *in, const struct grid *out, const float *film,
                      const struct scratch *s)
{
    const int channels = in->channels, hidden = block->expand.outputs, cells = in->h * in->w;
    const float *gate = film + 2 * channels;
    for (int first = 0; first < cells; first += GROUP) {
        int count = cells - first < GROUP ? cells - first : GROUP;
        depthwise(in, block, first, count, s->y, s->outputs);
        for (int i = 0; i < count; i++)
            normalise(s->y + (ptrdiff_t)i * s->outputs, channels, film, film + channels, s->a + (ptrdiff_t)i * s->inputs);
        product(s->a, s->inputs, &block->expand, s->y, s->outputs);
        for (int i = 0; i < count; i++)
            for (int c = 0; c < hidden; c += 16) {
                v16 x = load(s->y + (ptrdiff_t)i * s->outputs + c);
                store_bf16(s->b + (ptrdiff_t)i * s->inputs + c, x * sigmoid(x));
            }
        product(s->b, s->inputs, &block->project, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            int y = (first + i) / in->w, x = (first + i) % in->w;
            const float *was = at(in, y, x), *add = s->y + (ptrdiff_t)i * s->outputs;
            float *now = at(out, y, x);
            for (int c = 0; c < channels; c += 16) store(now + c, load(was + c) + load(add + c) * load(gate + c));
        }
    }
}

/* All blocks of a stage, back and forth between two grids; returns the one that holds the result. */
static struct grid *run_stage(const struct block *blocks, int depth, struct grid *here, struct grid *there,
                              const float **film, const struct scratch *s)
{
    for (int i = 0; i < depth; i++) {
        run_block(&blocks[i], here, there, *film, s);
        *film += 3 * here->channels;
        struct grid *other = here;
        here = there;
        there = other;
    }
    return here;
}

/* Four cells to one of half the grid, side by side, through a layer. */
static void go_down(const struct linear *l, const struct grid *in, const struct grid *out, const struct scratch *s)
{
    const int cells = out->h * out->w, channels = in->channels;
    for (int first = 0; first < cells; first += GROUP) {
        int count = cells - first < GROUP ? cells - first : GROUP;
        for (int i = 0; i < count; i++) {
            int y = (first + i) / out->w, x = (first + i) % out->w;
            for (int part = 0; part < 4; part++) {
                const float *from = at(in, 2 * y + part / 2, 2 * x + part % 2);
                uint16_t *to = s->a + (ptrdiff_t)i * s->inputs + part * channels;
                for (int c = 0; c < channels; c += 16) store_bf16(to + c, load(from + c));
            }
        }
        product(s->a, s->inputs, l, s->y, s->outputs);
        for (int i = 0; i < count; i++)
            memcpy(at(out, (first + i) / out->w, (first + i) % out->w), s->y + (ptrdiff_t)i * s->outputs, 4u * (unsigned)out->channels);
    }
}

/* One cell to four of twice the grid, added to what is there. */
static void go_up(const struct linear *l, const struct grid *in, const struct grid *out, const struct scratch *s)
{
    const int cells = in->h * in->w, channels = out->channels;
    for (int first = 0; first < cells; first += GROUP) {
        int count = cells - first < GROUP ? cells - first : GROUP;
        for (int i = 0; i < count; i++) {
            const float *from = at(in, (first + i) / in->w, (first + i) % in->w);
            for (int c = 0; c < in->channels; c += 16) store_bf16(s->a + (ptrdiff_t)i * s->inputs + c, load(from + c));
        }
        product(s->a, s->inputs, l, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            int y = (first + i) / in->w, x = (first + i) % in->w;
            for (int part = 0; part < 4; part++) {
                float *to = at(out, 2 * y + part / 2, 2 * x + part % 2);
                const float *add = s->y + (ptrdiff_t)i * s->outputs + part * channels;
                for (int c = 0; c < channels; c += 16) store(to + c, load(to + c) + load(add + c));
            }
        }
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------- */

/* `warp_state`: the stored state where its surfaces are now, and whether it may be read; [h2 * w2, state] and [h2 * w2]. */
static void warp(const int8_t *stored, const float *motion, const float *seen, int h, int w, int state, float *moved, float *valid)
{
    const int cells = h * w;
    for (int i = 0; i < cells; i++) {
        float dx = motion[i], dy = motion[cells + i];
        dx = dx == dx ? dx : 1e6f;
        dy = dy == dy ? dy : 1e6f;
        dx = (dx < -1e5f ? -1e5f : dx > 1e5f ? 1e5f : dx) / 16.0f;
        dy = (dy < -1e5f ? -1e5f : dy > 1e5f ? 1e5f : dy) / 16.0f;
        float x = (float)(i % w) + dx, y = (float)(i / w) + dy;
        int inside = y > -0.75f && y < (float)h - 0.25f && x > -0.75f && x < (float)w - 0.25f;
        valid[i] = inside ? seen[i] : 0.0f;
        x = x < 0 ? 0 : x > (float)(w - 1) ? (float)(w - 1) : x;
        y = y < 0 ? 0 : y > (float)(h - 1) ? (float)(h - 1) : y;
        int left = (int)x, top = (int)y, right = left + 1 < w ? left + 1 : left, bottom = top + 1 < h ? top + 1 : top;
        float fx = x - (float)left, fy = y - (float)top;
        const int8_t *a = stored + ((ptrdiff_t)top * w + left) * state, *b = stored + ((ptrdiff_t)top * w + right) * state;
        const int8_t *c = stored + ((ptrdiff_t)bottom * w + left) * state, *d = stored + ((ptrdiff_t)bottom * w + right) * state;
        float *out = moved + (ptrdiff_t)i * state;
        for (int k = 0; k < state; k++)
            out[k] = ((a[k] * (1 - fx) + b[k] * fx) * (1 - fy) + (c[k] * (1 - fx) + d[k] * fx) * fy) * (1.0f / 127.0f);
    }
}

/* Features, state and validity of a group side by side, as bf16. */
static void recall(const struct grid *half, const float *moved, const float *valid, int state, int first, int count, const struct scratch *s)
{
    for (int i = 0; i < count; i++) {
        const float *from = at(half, (first + i) / half->w, (first + i) % half->w);
        uint16_t *to = s->a + (ptrdiff_t)i * s->inputs;
        for (int c = 0; c < half->channels; c += 16) store_bf16(to + c, load(from + c));
        for (int c = 0; c < state; c += 16) store_bf16(to + half->channels + c, load(moved + (ptrdiff_t)(first + i) * state + c));
        to += half->channels + state;
        memset(to, 0, 64);
        to[0] = to_bf16(valid[first + i]);
    }
}

static void read_memory(const struct network *net, const struct grid *half, const float *moved, const float *valid, const struct scratch *s)
{
    const int cells = half->h * half->w, state = net->state;
    for (int first = 0; first < cells; first += GROUP) {
        int count = cells - first < GROUP ? cells - first : GROUP;
        recall(half, moved, valid, state, first, count, s);
        product(s->a, s->inputs, &net->trust, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            uint16_t *to = s->b + (ptrdiff_t)i * s->inputs;
            memset(to + state, 0, 64);
            for (int c = 0; c < state; c += 16) {
                v16 gate = sigmoid(load(s->y + (ptrdiff_t)i * s->outputs + c)) * valid[first + i];
                store_bf16(to + c, load(moved + (ptrdiff_t)(first + i) * state + c) * gate);
            }
        }
        product(s->b, s->inputs, &net->into, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            float *to = at(half, (first + i) / half->w, (first + i) % half->w);
            for (int c = 0; c < half->channels; c += 16) store(to + c, load(to + c) + load(s->y + (ptrdiff_t)i * s->outputs + c));
        }
    }
}

/* The next state, in eight bits; adds to `squares` (state, change) and `weight`, for the statistics. */
static void write_memory(const struct network *net, const struct grid *half, const float *moved, const float *valid,
                         const struct scratch *s, int8_t *stored, double squares[2], double *weight)
{
    const int cells = half->h * half->w, state = net->state;
    for (int first = 0; first < cells; first += GROUP) {
        int count = cells - first < GROUP ? cells - first : GROUP;
        recall(half, moved, valid, state, first, count, s);
        product(s->a, s->inputs, &net->keep, s->y, s->outputs);
        product(s->a, s->inputs, &net->candidate, s->z, s->outputs);
        for (int i = 0; i < count; i++) {
            float known = valid[first + i];
            int8_t *to = stored + (ptrdiff_t)(first + i) * state;
            v16 all = {0}, changed = {0};
            for (int c = 0; c < state; c += 16) {
                v16 was = load(moved + (ptrdiff_t)(first + i) * state + c);
                v16 keep = sigmoid(load(s->y + (ptrdiff_t)i * s->outputs + c)) * known;
                v16 fresh = 2.0f * sigmoid(2.0f * load(s->z + (ptrdiff_t)i * s->outputs + c)) - 1.0f;
                v16 now = was * keep + fresh * (1.0f - keep), off = (now - was) * known;
                all += now * now;
                changed += off * off;
                /* Rounded to even by adding and taking away; NaN is stored as nothing. */
                v16 level = choose(now == now, now, (v16){0}) * 127.0f;
                level = (level + 12582912.0f) - 12582912.0f;
                for (int k = 0; k < 16; k++) to[c + k] = (int8_t)(level[k] < -127 ? -127 : level[k] > 127 ? 127 : level[k]);
            }
            squares[0] += sum(all);
            squares[1] += sum(changed);
            *weight += (double)known * known;
        }
    }
}

/* ---- the frame ---------------------------------------------------------------------------------------------- */

static int widest_input(const struct network *net)
{
    int most = padded(CELL + NOISE + PLANES, 32);
    for (int i = 0; i < 3; i++) {
        if (i < 2 && 4 * net->widths[i] > most) most = 4 * net->widths[i];
        if (net->hidden[i] > most) most = net->hidden[i];
    }
    int memory = padded(net->widths[1] + net->state + 1, 32) + 32;
    return padded(memory > most ? memory : most, 32);
}

static int widest_output(const struct network *net)
{
    int most = CELL;
    for (int i = 0; i < 3; i++) {
        if (i < 2 && 4 * net->widths[i] > most) most = 4 * net->widths[i];
        if (net->hidden[i] > most) most = net->hidden[i];
        if (net->widths[i] > most) most = net->widths[i];
    }
    return padded(most, 16);
}

static size_t grid_floats(int h, int w, int channels) { return (size_t)(h + 4) * (size_t)(w + 4) * (size_t)channels; }

/* Bytes of the zeroed, 64-byte aligned memory that `mirage_core` works in; it may be used again for the same h and w. */
size_t mirage_core_bytes(const struct network *net, int h, int w)
{
    size_t floats = 2 * grid_floats(h, w, net->widths[0]) + 2 * grid_floats(h / 2, w / 2, net->widths[1])
                    + 2 * grid_floats(h / 4, w / 4, net->widths[2]) + (size_t)(h / 2) * (size_t)(w / 2) * (size_t)(net->state + 1)
                    + 2 * (size_t)GROUP * (size_t)widest_output(net) + COEFFICIENTS + 16;
    return 4 * floats + 4 * (size_t)GROUP * (size_t)widest_input(net) + (size_t)COEFFICIENTS * (size_t)net->widths[0] * 2 + 16 * 64;
}

/* As `CoreInput` and `CoreOutput` in core.py: `cells` [h, w, 192] bytes, `noise` [h, w, 16], `planes` [h, w, 24], `stored`
 * [h/2, w/2, S], `motion` [2, h/2, w/2], `seen` [h/2, w/2], `film` with the style's maps behind it; out come `matrices` [h, w,
 * 48], `detail` [h, w, 192], `next` as `stored`, `health` [5]. h and w are multiples of 4. */
void mirage_core(const struct network *net, int h, int w, const uint8_t *cells, const float *noise, const float *planes,
                 const int8_t *stored, const float *motion, const float *seen, const float *film, unsigned char *memory,
                 float *matrices, float *detail, int8_t *next, float *health)
{
    const int c0 = net->widths[0], c1 = net->widths[1], c2 = net->widths[2], h2 = h / 2, w2 = w / 2, count = h * w;
    unsigned char *free = memory;
#define TAKE(type, number) ((type *)free); free += (sizeof(type) * (size_t)(number) + 63) / 64 * 64
    struct grid full[2], half[2], quarter[2];
    for (int i = 0; i < 2; i++) {
        full[i] = (struct grid){NULL, h, w, c0};
        full[i].data = TAKE(float, grid_floats(h, w, c0));
        half[i] = (struct grid){NULL, h2, w2, c1};
        half[i].data = TAKE(float, grid_floats(h2, w2, c1));
        quarter[i] = (struct grid){NULL, h / 4, w / 4, c2};
        quarter[i].data = TAKE(float, grid_floats(h / 4, w / 4, c2));
    }
    struct scratch s = {.inputs = widest_input(net), .outputs = widest_output(net)};
    s.a = TAKE(uint16_t, GROUP * s.inputs);
    s.b = TAKE(uint16_t, GROUP * s.inputs);
    s.y = TAKE(float, GROUP * s.outputs);
    s.z = TAKE(float, GROUP * s.outputs);
    float *moved = TAKE(float, h2 * w2 * net->state);
    float *valid = TAKE(float, h2 * w2);
    uint16_t *head_weight = TAKE(uint16_t, COEFFICIENTS * c0);
    float *head_bias = TAKE(float, COEFFICIENTS);
#undef TAKE
    configure();
    for (int first = 0; first < count; first += GROUP) {
        int some = count - first < GROUP ? count - first : GROUP;
        for (int i = 0; i < some; i++) {
            uint16_t *to = s.a + (ptrdiff_t)i * s.inputs;
            const uint8_t *cell = cells + (ptrdiff_t)(first + i) * CELL;
            for (int c = 0; c < CELL; c += 16) {
                typedef uint8_t b16 __attribute__((vector_size(16), aligned(1)));
                store_bf16(to + c, __builtin_convertvector(__builtin_convertvector(*(const b16 *)(cell + c), i16), v16));
            }
            store_bf16(to + CELL, load(noise + (ptrdiff_t)(first + i) * NOISE));
            const float *plane = planes + (ptrdiff_t)(first + i) * PLANES;
            store_bf16(to + CELL + NOISE, load(plane));
            for (int c = 16; c < PLANES; c++) to[CELL + NOISE + c] = to_bf16(plane[c]);
            for (int c = CELL + NOISE + PLANES; c < padded(CELL + NOISE + PLANES, 32); c++) to[c] = 0;
        }
        product(s.a, s.inputs, &net->stem, s.y, s.outputs);
        for (int i = 0; i < some; i++)
            memcpy(at(&full[0], (first + i) / w, (first + i) % w), s.y + (ptrdiff_t)i * s.outputs, 4u * (unsigned)c0);
    }
    warp(stored, motion, seen, h2, w2, net->state, moved, valid);

    const struct block *blocks = net->blocks;
    const float *scales = film;
    struct grid *top = run_stage(blocks, net->depths[0], &full[0], &full[1], &scales, &s);
    blocks += net->depths[0];
    go_down(&net->down1, top, &half[0], &s);
    struct grid *middle = run_stage(blocks, net->depths[1], &half[0], &half[1], &scales, &s);
    blocks += net->depths[1];
    read_memory(net, middle, moved, valid, &s);
    go_down(&net->down2, middle, &quarter[0], &s);
    struct grid *deep = run_stage(blocks, net->depths[2], &quarter[0], &quarter[1], &scales, &s);
    blocks += net->depths[2];
    go_up(&net->up2, deep, middle, &s);
    middle = run_stage(blocks, net->depths[3], middle, middle == &half[0] ? &half[1] : &half[0], &scales, &s);
    blocks += net->depths[3];
    double squares[2] = {0, 0}, weight = 0;
    write_memory(net, middle, moved, valid, &s, next, squares, &weight);
    go_up(&net->up1, middle, top, &s);
    top = run_stage(blocks, net->depths[4], top, top == &full[0] ? &full[1] : &full[0], &scales, &s);

    /* The style's colour maps, folded into the head: 48 outputs, packed as `product` reads them. */
    const float *maps = scales + 2 * c0;
    for (int bin = 0; bin < BINS; bin++)
        for (int k = 0; k < TRANSFORM; k++) {
            const int row = bin * TRANSFORM + k;
            float offset = net->head_bias[row];
            for (int m = 0; m < net->maps; m++) offset += maps[m * TRANSFORM + k] * net->mix_bias[bin * net->maps + m];
            head_bias[row] = offset;
            for (int c = 0; c < c0; c += 16) {
                v16 x = load(net->head + row * c0 + c);
                for (int m = 0; m < net->maps; m++)
                    x += maps[m * TRANSFORM + k] * load(net->mix + (bin * net->maps + m) * c0 + c);
                for (int i = 0; i < 16; i++)
                    head_weight[((row / 16 * (c0 / 32) + (c + i) / 32) * 16 + (c + i) % 32 / 2) * 32 + row % 16 * 2 + i % 2] = to_bf16(x[i]);
            }
        }
    const struct linear head = {head_weight, head_bias, c0, COEFFICIENTS};
    v16 transforms = {0}, details = {0};
    for (int first = 0; first < count; first += GROUP) {
        int some = count - first < GROUP ? count - first : GROUP;
        for (int i = 0; i < some; i++)
            normalise(at(top, (first + i) / w, (first + i) % w), c0, scales, scales + c0, s.a + (ptrdiff_t)i * s.inputs);
        product(s.a, s.inputs, &head, s.y, s.outputs);
        product(s.a, s.inputs, &net->detail, s.z, s.outputs);
        for (int i = 0; i < some; i++) {
            for (int c = 0; c < COEFFICIENTS; c += 16) {
                v16 x = load(s.y + (ptrdiff_t)i * s.outputs + c);
                transforms += x * x;
                store(matrices + (ptrdiff_t)(first + i) * COEFFICIENTS + c, x);
            }
            for (int c = 0; c < CELL; c += 16) {
                v16 x = load(s.z + (ptrdiff_t)i * s.outputs + c);
                details += x * x;
                store(detail + (ptrdiff_t)(first + i) * CELL + c, x);
            }
        }
    }
    _tile_release();
    const double states = (double)h2 * w2 * net->state;
    weight *= net->state;
    health[0] = sum(transforms) / (float)(count * COEFFICIENTS);
    health[1] = sum(details) / (float)(count * CELL);
    health[2] = (float)(squares[0] / states);
    health[3] = (float)(squares[1] / (weight > 1 ? weight : 1));
    health[4] = (health[0] + health[1] + health[2] + health[3]) * 0.0f;
}
