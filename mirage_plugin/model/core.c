/* The network on a processor: one step from a frame's cells to its edit, what `Core.forward` in core.py computes.
 *
 * A group of cells passes through a whole block while it lies in the nearest caches: depthwise, norm and FiLM, expand,
 * SiLU, project, gate. Groups are what threads share (crew.h). The hidden activation is never in memory. Products are fp32 in vectors, or bf16 with fp32 sums
 * where the processor has a matrix unit (products.h); everything between them is fp32 (vectors.h, shade.h).
 *
 * Counted for nano on 80x48 cells: 0.58 G multiply-adds in products, 0.03 G depthwise, 2.2 M exponentials.
 */
#include "crew.h"
#include "overview.h"
#include "products.h"

enum { CELL = DETAIL, NOISE = POINTS, PLANES = 32 };
/* A byte goes into the stem as 0 to 2, as large as noise and planes: a row of integers has one unit for all three. */
static const float BYTE = 1.0f / 128.0f;
/* Where in a row of the head's outputs the words, the transforms and the detail begin. */
enum { SAYS = 0, TURNS = (WORDS + 15) / 16 * 16, ADDS = TURNS + COEFFICIENTS, HEAD = ADDS + CELL };
/* Rows of activations lie this much further apart than they are long: at powers of two they would share cache lines. */
enum { APART = MIRAGE_TILES ? 0 : 16 };

struct block {
    const float *taps; /* [25, channels] */
    const float *bias; /* [channels] */
    struct linear expand, project;
};

/* Everything that a tier's weights are; filled by native_core.py, which holds the order. */
struct network {
    int32_t widths[3], depths[5], hidden[3], state;
    struct linear stem, down1, down2, up2, up1, trust, into, keep, candidate, head;
    const struct block *blocks;
};

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

/* What a thread works in. */
struct scratch {
    number *a, *b; /* [GROUP, widest input] */
    float *y, *z;    /* [GROUP, widest output] */
    int inputs, outputs;
};

/* Of a group of cells, for the statistics. */
typedef double sums[3];

static inline int groups_of(int cells) { return (cells + GROUP - 1) / GROUP; }
static inline int rest_of(int cells, int first) { return cells - first < GROUP ? cells - first : GROUP; }
/* The loop over those groups of `cells` that this thread takes, by their first cell. */
#define EACH_GROUP(crew, cells, first) \
    for (int first; (first = take(crew, groups_of(cells)) * GROUP) >= 0; done(crew))

/* `run` neighbours (1 or 4, known where this is called) share the taps; `corner` is two cells up and left of the
 * first. */
static inline __attribute__((always_inline)) void
depthwise_run(const float *corner, ptrdiff_t pitch, int channels, const struct block *block, float *out,
              ptrdiff_t stride, const int run)
{
    for (int c = 0; c < channels; c += LANES) {
        vec acc[4];
#pragma GCC unroll 4
        for (int r = 0; r < run; r++) acc[r] = load(block->bias + c);
        const float *from = corner + c, *taps = block->taps + c;
#pragma GCC unroll 1
        for (int dy = 0; dy < 5; dy++, from += pitch, taps += 5 * channels) {
            vec row[8];
#pragma GCC unroll 8
            for (int t = 0; t < run + 4; t++) row[t] = load(from + t * channels);
#pragma GCC unroll 5
            for (int dx = 0; dx < 5; dx++) {
                const vec tap = load(taps + dx * channels);
#pragma GCC unroll 4
                for (int r = 0; r < run; r++) ADD_PRODUCT(acc[r], row[dx + r], tap);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < run; r++) store(out + r * stride + c, acc[r]);
    }
}

/* y of GROUP cells from `first` on: the depthwise convolution. */
static void depthwise(const struct grid *in, const struct block *block, int first, int count, float *out, int stride)
{
    const ptrdiff_t pitch = (ptrdiff_t)(in->w + 4) * in->channels;
    for (int i = 0; i < count;) {
        int y = (first + i) / in->w, x = (first + i) % in->w;
        const float *corner = at(in, y - 2, x - 2);
        float *to = out + (ptrdiff_t)i * stride;
        if (in->w - x >= 4 && count - i >= 4) {
            depthwise_run(corner, pitch, in->channels, block, to, stride, 4);
            i += 4;
        } else {
            depthwise_run(corner, pitch, in->channels, block, to, stride, 1);
            i++;
        }
    }
}

/* The root of the mean square of a cell's channels. */
static inline float size_of(const float *x, int channels)
{
    vec squares = {0};
    for (int c = 0; c < channels; c += LANES) squares += load(x + c) * load(x + c);
    return __builtin_sqrtf(sum(squares) / (float)channels + 1e-6f);
}

/* RMSNorm over channels with FiLM. */
static inline void normalise(const float *x, int channels, const float *scale, const float *shift, number *out)
{
    const float inverse = 1.0f / size_of(x, channels);
    for (int c = 0; c < channels; c += LANES)
        put(out + c, load(x + c) * inverse * (1.0f + load(scale + c)) + load(shift + c));
}

static void run_block(struct crew *crew, const struct block *block, const struct grid *in, const struct grid *out,
                      const float *film, const struct scratch *s)
{
    const int channels = in->channels, hidden = block->expand.outputs, cells = in->h * in->w;
    const float *gate = film + 2 * channels;
    EACH_GROUP(crew, cells, first) {
        const int count = rest_of(cells, first);
        depthwise(in, block, first, count, s->y, s->outputs);
        for (int i = 0; i < count; i++)
            normalise(s->y + (ptrdiff_t)i * s->outputs, channels, film, film + channels,
                      s->a + (ptrdiff_t)i * s->inputs);
        product(s->a, s->inputs, count, &block->expand, s->y, s->outputs);
        for (int i = 0; i < count; i++)
            for (int c = 0; c < hidden; c += LANES) {
                vec x = load(s->y + (ptrdiff_t)i * s->outputs + c);
                put(s->b + (ptrdiff_t)i * s->inputs + c, x * sigmoid(x));
            }
        product(s->b, s->inputs, count, &block->project, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            int y = (first + i) / in->w, x = (first + i) % in->w;
            const float *was = at(in, y, x), *add = s->y + (ptrdiff_t)i * s->outputs;
            float *now = at(out, y, x);
            for (int c = 0; c < channels; c += LANES) store(now + c, load(was + c) + load(add + c) * load(gate + c));
        }
    }
    together(crew, groups_of(cells));
}

/* All blocks of a stage, back and forth between two grids; returns the one that holds the result. */
static struct grid *run_stage(struct crew *crew, const struct block *blocks, int depth, struct grid *here,
                              struct grid *there, const float **film, const struct scratch *s)
{
    for (int i = 0; i < depth; i++) {
        run_block(crew, &blocks[i], here, there, *film, s);
        *film += 3 * here->channels;
        struct grid *other = here;
        here = there;
        there = other;
    }
    return here;
}

/* Four cells to one of half the grid, side by side, through a layer. */
static void go_down(struct crew *crew, const struct linear *l, const struct grid *in, const struct grid *out,
                    const struct scratch *s)
{
    const int cells = out->h * out->w, channels = in->channels;
    EACH_GROUP(crew, cells, first) {
        const int count = rest_of(cells, first);
        for (int i = 0; i < count; i++) {
            int y = (first + i) / out->w, x = (first + i) % out->w;
            for (int part = 0; part < 4; part++) {
                const float *from = at(in, 2 * y + part / 2, 2 * x + part % 2);
                number *to = s->a + (ptrdiff_t)i * s->inputs + part * channels;
                for (int c = 0; c < channels; c += LANES) put(to + c, load(from + c));
            }
        }
        product(s->a, s->inputs, count, l, s->y, s->outputs);
        for (int i = 0; i < count; i++)
            memcpy(at(out, (first + i) / out->w, (first + i) % out->w), s->y + (ptrdiff_t)i * s->outputs,
                   4u * (unsigned)out->channels);
    }
    together(crew, groups_of(cells));
}

/* One cell to four of twice the grid, added to what is there. */
static void go_up(struct crew *crew, const struct linear *l, const struct grid *in, const struct grid *out,
                  const struct scratch *s)
{
    const int cells = in->h * in->w, channels = out->channels;
    EACH_GROUP(crew, cells, first) {
        const int count = rest_of(cells, first);
        for (int i = 0; i < count; i++) {
            const float *from = at(in, (first + i) / in->w, (first + i) % in->w);
            for (int c = 0; c < in->channels; c += LANES) put(s->a + (ptrdiff_t)i * s->inputs + c, load(from + c));
        }
        product(s->a, s->inputs, count, l, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            int y = (first + i) / in->w, x = (first + i) % in->w;
            for (int part = 0; part < 4; part++) {
                float *to = at(out, 2 * y + part / 2, 2 * x + part % 2);
                const float *add = s->y + (ptrdiff_t)i * s->outputs + part * channels;
                for (int c = 0; c < channels; c += LANES) store(to + c, load(to + c) + load(add + c));
            }
        }
    }
    together(crew, groups_of(cells));
}

/* ---- memory ------------------------------------------------------------------------------------------------- */

/* `warp_state` of `count` cells: the stored state where its surfaces are now, and whether it may be read;
 * [h2 * w2, state] and [h2 * w2]. */
static void warp(const int8_t *stored, const float *motion, const float *seen, int h, int w, int state, int first,
                 int count, float *moved, float *valid)
{
    const int cells = h * w;
    for (int i = first; i < first + count; i++) {
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
        const int8_t *above = stored + (ptrdiff_t)top * w * state, *below = stored + (ptrdiff_t)bottom * w * state;
        const int8_t *a = above + (ptrdiff_t)left * state, *b = above + (ptrdiff_t)right * state;
        const int8_t *c = below + (ptrdiff_t)left * state, *d = below + (ptrdiff_t)right * state;
        float *out = moved + (ptrdiff_t)i * state;
        for (int k = 0; k < state; k++)
            out[k] = ((a[k] * (1 - fx) + b[k] * fx) * (1 - fy) + (c[k] * (1 - fx) + d[k] * fx) * fy) * (1.0f / 127.0f);
    }
}

/* Features at unit size, state and validity of a group side by side. */
static void recall(const struct grid *half, const float *moved, const float *valid, int state, int first, int count,
                   const struct scratch *s)
{
    for (int i = 0; i < count; i++) {
        const float *from = at(half, (first + i) / half->w, (first + i) % half->w);
        const float inverse = 1.0f / size_of(from, half->channels);
        number *to = s->a + (ptrdiff_t)i * s->inputs;
        for (int c = 0; c < half->channels; c += LANES) put(to + c, load(from + c) * inverse);
        for (int c = 0; c < state; c += LANES)
            put(to + half->channels + c, load(moved + (ptrdiff_t)(first + i) * state + c));
        to += half->channels + state;
        memset(to, 0, INPUTS * sizeof(number));
        to[0] = to_number(valid[first + i]);
    }
}

static void read_memory(struct crew *crew, const struct network *net, const struct grid *half, const float *moved,
                        const float *valid, const struct scratch *s)
{
    const int cells = half->h * half->w, state = net->state;
    EACH_GROUP(crew, cells, first) {
        const int count = rest_of(cells, first);
        recall(half, moved, valid, state, first, count, s);
        product(s->a, s->inputs, count, &net->trust, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            number *to = s->b + (ptrdiff_t)i * s->inputs;
            memset(to + state, 0, INPUTS * sizeof(number));
            for (int c = 0; c < state; c += LANES) {
                vec gate = sigmoid(load(s->y + (ptrdiff_t)i * s->outputs + c)) * valid[first + i];
                put(to + c, load(moved + (ptrdiff_t)(first + i) * state + c) * gate);
            }
        }
        product(s->b, s->inputs, count, &net->into, s->y, s->outputs);
        for (int i = 0; i < count; i++) {
            float *to = at(half, (first + i) / half->w, (first + i) % half->w);
            const float size = size_of(to, half->channels);
            for (int c = 0; c < half->channels; c += LANES)
                store(to + c, load(to + c) + size * load(s->y + (ptrdiff_t)i * s->outputs + c));
        }
    }
    together(crew, groups_of(cells));
}

/* The next state, in eight bits; `squares` are, for each group, of the state and of its change, and how many cells the
 * latter is of. */
static void write_memory(struct crew *crew, const struct network *net, const struct grid *half, const float *moved,
                         const float *valid, const struct scratch *s, int8_t *stored, sums *squares)
{
    const int cells = half->h * half->w, state = net->state;
    EACH_GROUP(crew, cells, first) {
        const int count = rest_of(cells, first);
        recall(half, moved, valid, state, first, count, s);
        product(s->a, s->inputs, count, &net->keep, s->y, s->outputs);
        product(s->a, s->inputs, count, &net->candidate, s->z, s->outputs);
        double *of_group = squares[first / GROUP];
        memset(of_group, 0, 3 * sizeof(double));
        for (int i = 0; i < count; i++) {
            float known = valid[first + i];
            int8_t *to = stored + (ptrdiff_t)(first + i) * state;
            vec whole = {0}, changed = {0};
            for (int c = 0; c < state; c += LANES) {
                vec was = load(moved + (ptrdiff_t)(first + i) * state + c);
                vec keep = sigmoid(load(s->y + (ptrdiff_t)i * s->outputs + c)) * known;
                vec fresh = hyperbolic_tangent(load(s->z + (ptrdiff_t)i * s->outputs + c));
                vec now = was * keep + fresh * (1.0f - keep), off = (now - was) * known;
                whole += now * now;
                changed += off * off;
                /* Rounded to even by adding and taking away; NaN is stored as nothing. */
                vec level = choose(now == now, now, (vec){0}) * 127.0f;
                level = (level + 12582912.0f) - 12582912.0f;
                for (int k = 0; k < LANES; k++)
                    to[c + k] = (int8_t)(level[k] < -127 ? -127 : level[k] > 127 ? 127 : level[k]);
            }
            of_group[0] += sum(whole);
            of_group[1] += sum(changed);
            of_group[2] += (double)known * known;
        }
    }
    together(crew, groups_of(cells));
}

/* ---- the frame ---------------------------------------------------------------------------------------------- */

static int widest_input(const struct network *net)
{
    int most = padded(CELL + NOISE + PLANES, INPUTS);
    for (int i = 0; i < 3; i++) {
        if (i < 2 && 4 * net->widths[i] > most) most = 4 * net->widths[i];
        if (net->hidden[i] > most) most = net->hidden[i];
    }
    int memory = padded(net->widths[1] + net->state + 1, INPUTS) + INPUTS;
    return padded(memory > most ? memory : most, INPUTS) + APART;
}

static int widest_output(const struct network *net)
{
    int most = HEAD;
    for (int i = 0; i < 3; i++) {
        if (i < 2 && 4 * net->widths[i] > most) most = 4 * net->widths[i];
        if (net->hidden[i] > most) most = net->hidden[i];
        if (net->widths[i] > most) most = net->widths[i];
    }
    return padded(most, 16) + APART;
}

static size_t grid_floats(int h, int w, int channels) { return (size_t)(h + 4) * (size_t)(w + 4) * (size_t)channels; }

/* How many cells at most are looked at with those around: those of an overview, or of a frame that needs none. */
static size_t seen_cells(int h, int w, int overview_h, int overview_w)
{
    const size_t own = (size_t)h * (size_t)w, overview = (size_t)overview_h * (size_t)overview_w;
    return own > overview ? own : overview;
}

/* Bytes of the zeroed, 64-byte aligned memory that `mirage_core` works in with up to `threads`; it may be used again for
 * the same sizes. */
size_t mirage_core_bytes(const struct network *net, int h, int w, int overview_h, int overview_w, int threads)
{
    const size_t cells = (size_t)h * (size_t)w;
    const size_t floats = 2 * grid_floats(h, w, net->widths[0]) + 2 * grid_floats(h / 2, w / 2, net->widths[1])
                          + 2 * grid_floats(h / 4, w / 4, net->widths[2]) + cells / 4 * (size_t)(net->state + 1)
                          + 2 * field_floats(h, w) + 2 * mark_floats(h, w);
    const size_t own = 2 * sizeof(number) * (size_t)GROUP * (size_t)widest_input(net)
                       + 8 * (size_t)GROUP * (size_t)widest_output(net) + 4 * 64;
    return 4 * floats + (size_t)threads * own + 2 * sizeof(struct seen) * seen_cells(h, w, overview_h, overview_w)
           + 6 * sizeof(double) * (size_t)groups_of(h * w) + 24 * 64;
}

/* How many phases `mirage_core` has at most, of 64 bytes each. */
int mirage_core_phases(const struct network *net)
{
    int phases = 20;
    for (int i = 0; i < 5; i++) phases += net->depths[i];
    return phases;
}

/* How many threads share the work at most. */
int mirage_core_threads(void) { return CREW; }

/* As `CoreInput` and `CoreOutput` in core.py: `cells` [h, w, 192] bytes, `noise` [h, w, 16], `planes` [h, w, 32],
 * `stored` [h/2, w/2, S], `motion` [2, h/2, w/2], `seen` [h/2, w/2], `there` [h, w, 2], `film` with the style behind it,
 * `overview` [overview_h, overview_w, WORDS], `place` [4], `came` [2, h, w]; out come `matrices` [h, w, 48],
 * `detail` [h, w, 192], `anchors` [h, w, 16], `pens` [h, w, 8], `next` as `stored`, `health` [5], `words` [h, w, WORDS].
 * h and w are multiples of 4. Of the threads that share the work, number 0 returns when all is done; another that comes
 * after that reads `net`, `film` and `place` and nothing else. */
void mirage_core(struct phase *phases, int me, int threads, const struct network *net, int h, int w, const uint8_t *cells,
                 const float *noise, const float *planes, const int8_t *stored, const float *motion, const float *seen,
                 const float *there, const float *film, const float *overview, const float *place, const float *came,
                 int overview_h, int overview_w, unsigned char *memory, float *matrices, float *detail, float *anchors,
                 float *pens, int8_t *next, float *health, float *words)
{
    const int c0 = net->widths[0], c1 = net->widths[1], c2 = net->widths[2], h2 = h / 2, w2 = w / 2, total = h * w;
    struct crew team = {phases, me, threads}, *crew = &team;
    unsigned char *free = memory;
#define TAKE(type, many) ((type *)free); free += (sizeof(type) * (size_t)(many) + 63) / 64 * 64
    struct grid full[2], half[2], quarter[2];
    for (int i = 0; i < 2; i++) {
        full[i] = (struct grid){NULL, h, w, c0};
        full[i].data = TAKE(float, grid_floats(h, w, c0));
        half[i] = (struct grid){NULL, h2, w2, c1};
        half[i].data = TAKE(float, grid_floats(h2, w2, c1));
        quarter[i] = (struct grid){NULL, h / 4, w / 4, c2};
        quarter[i].data = TAKE(float, grid_floats(h / 4, w / 4, c2));
    }
    float *moved = TAKE(float, h2 * w2 * net->state);
    float *valid = TAKE(float, h2 * w2);
    float *fields[2], *marked[2];
    for (int i = 0; i < 2; i++) {
        fields[i] = TAKE(float, field_floats(h, w));
        marked[i] = TAKE(float, mark_floats(h, w));
    }
    const size_t most_seen = seen_cells(h, w, overview_h, overview_w);
    struct seen *looked = TAKE(struct seen, most_seen);
    struct seen *between = TAKE(struct seen, most_seen);
    sums *of_edit = TAKE(sums, groups_of(total));
    sums *of_state = TAKE(sums, groups_of(h2 * w2));
    struct scratch s = {.inputs = widest_input(net), .outputs = widest_output(net)};
    for (int thread = 0; thread <= me; thread++) {
        s.a = TAKE(number, GROUP * s.inputs);
        s.b = TAKE(number, GROUP * s.inputs);
        s.y = TAKE(float, GROUP * s.outputs);
        s.z = TAKE(float, GROUP * s.outputs);
    }
#undef TAKE
    const float *film_end = film;
    const int widths[5] = {c0, c1, c2, c1, c0};
    for (int i = 0; i < 5; i++) film_end += 3 * widths[i] * net->depths[i];
    const struct shading shading = prepare_shading((const struct style *)(film_end + 2 * c0));
    const struct marks marks = {
        .noise = noise, .w = w, .strokes = shading.p->hatch != 0 ? marked[1] : NULL,
        .pooled = shading.p->wash != 0 ? marked[0] : NULL,
    };
    begin_products();

    /* First what needs nothing but the frame: the stem, the state where it is now, and what marks are drawn from. */
    const int stem_groups = groups_of(total), all_groups = stem_groups + groups_of(h2 * w2);
    for (int part; (part = take(crew, all_groups + 2)) >= 0; done(crew)) {
        if (part >= all_groups) {
            const int which = part - all_groups;
            if (which ? shading.p->hatch != 0 : shading.p->wash != 0) sum_noise(noise, h, w, which, fields[which], marked[which]);
            continue;
        }
        if (part >= stem_groups) {
            const int first = (part - stem_groups) * GROUP;
            warp(stored, motion, seen, h2, w2, net->state, first, rest_of(h2 * w2, first), moved, valid);
            continue;
        }
        const int first = part * GROUP, count = rest_of(total, first);
        for (int i = 0; i < count; i++) {
            number *to = s.a + (ptrdiff_t)i * s.inputs;
            const uint8_t *cell = cells + (ptrdiff_t)(first + i) * CELL;
            for (int c = 0; c < CELL; c += LANES) put(to + c, from_bytes(cell + c) * BYTE);
            for (int c = 0; c < NOISE; c += LANES) put(to + CELL + c, load(noise + (ptrdiff_t)(first + i) * NOISE + c));
            const float *plane = planes + (ptrdiff_t)(first + i) * PLANES;
            for (int c = 0; c < PLANES; c++) to[CELL + NOISE + c] = to_number(plane[c]);
            for (int c = CELL + NOISE + PLANES; c < padded(CELL + NOISE + PLANES, INPUTS); c++) to[c] = 0;
        }
        product(s.a, s.inputs, count, &net->stem, s.y, s.outputs);
        for (int i = 0; i < count; i++)
            memcpy(at(&full[0], (first + i) / w, (first + i) % w), s.y + (ptrdiff_t)i * s.outputs, 4u * (unsigned)c0);
    }
    together(crew, all_groups + 2);

    const struct block *blocks = net->blocks;
    const float *scales = film;
    struct grid *top = run_stage(crew, blocks, net->depths[0], &full[0], &full[1], &scales, &s);
    blocks += net->depths[0];
    go_down(crew, &net->down1, top, &half[0], &s);
    struct grid *middle = run_stage(crew, blocks, net->depths[1], &half[0], &half[1], &scales, &s);
    blocks += net->depths[1];
    read_memory(crew, net, middle, moved, valid, &s);
    go_down(crew, &net->down2, middle, &quarter[0], &s);
    struct grid *deep = run_stage(crew, blocks, net->depths[2], &quarter[0], &quarter[1], &scales, &s);
    blocks += net->depths[2];
    go_up(crew, &net->up2, deep, middle, &s);
    middle = run_stage(crew, blocks, net->depths[3], middle, middle == &half[0] ? &half[1] : &half[0], &scales, &s);
    blocks += net->depths[3];
    write_memory(crew, net, middle, moved, valid, &s, next, of_state);
    go_up(crew, &net->up1, middle, top, &s);
    top = run_stage(crew, blocks, net->depths[4], top, top == &full[0] ? &full[1] : &full[0], &scales, &s);

    /* The head says what is to be seen, and the style paints it. */
    const struct overview whole = {looked, overview_h, overview_w, place[0], place[1], place[2]};
    if (whole.believed > 0) look(crew, overview, overview_h, overview_w, place[3] > 0, looked, between);
    /* All has to be said before a frame's own words can agree. */
    const int agreeing = place[3] > 0 && !(whole.believed > 0);
    EACH_GROUP(crew, total, first) {
        const int count = rest_of(total, first);
        for (int i = 0; i < count; i++)
            normalise(at(top, (first + i) / w, (first + i) % w), c0, scales, scales + c0,
                      s.a + (ptrdiff_t)i * s.inputs);
        product(s.a, s.inputs, count, &net->head, s.y, s.outputs);
        for (int i = 0; i < count; i++) {
            float *said = s.y + (ptrdiff_t)i * s.outputs;
            if (whole.believed > 0) tell(&whole, (first + i) / w, (first + i) % w, said + SAYS);
            memcpy(words + (ptrdiff_t)(first + i) * WORDS, said + SAYS, sizeof(float) * WORDS);
            memcpy(matrices + (ptrdiff_t)(first + i) * COEFFICIENTS, said + TURNS, 4 * COEFFICIENTS);
            memcpy(detail + (ptrdiff_t)(first + i) * CELL, said + ADDS, 4 * CELL);
        }
        if (!agreeing)
            shade(&shading, &marks, s.y + SAYS, s.outputs, first, count, there, matrices, detail, anchors, pens);
    }
    together(crew, groups_of(total));
    if (agreeing) {
        look(crew, words, h, w, 1, looked, between);
        for (int y; (y = take(crew, h)) >= 0; done(crew)) {
            for (int i = y * w; i < y * w + w; i++)
                for (int b = 0; b < BINS; b++)
                    memcpy(words + (ptrdiff_t)i * WORDS + b * SURFACE + TOLD, looked[i].said[b], sizeof(float) * (TOLD_END - TOLD));
            if (place[3] > 1) remember(y, h, w, words, overview, came);
        }
        together(crew, h);
    }
    EACH_GROUP(crew, total, first) {
        const int count = rest_of(total, first);
        if (agreeing) {
            for (int i = 0; i < count; i++)
                memcpy(s.y + (ptrdiff_t)i * s.outputs + SAYS, words + (ptrdiff_t)(first + i) * WORDS, sizeof(float) * WORDS);
            shade(&shading, &marks, s.y + SAYS, s.outputs, first, count, there, matrices, detail, anchors, pens);
        }
        vec changed = {0}, added = {0}, coloured = {0};
        for (int k = 0; k < count * COEFFICIENTS; k += LANES) {
            vec x = load(matrices + (ptrdiff_t)first * COEFFICIENTS + k);
            changed += x * x;
        }
        for (int k = 0; k < count * CELL; k += LANES) {
            vec x = load(detail + (ptrdiff_t)first * CELL + k);
            added += x * x;
        }
        for (int k = 0; k < count * ANCHORS; k += LANES) coloured += load(anchors + (ptrdiff_t)first * ANCHORS + k);
        /* GROUP cells, and the rest of a frame, have whole vectors of pens: h and w are multiples of 4. */
        for (int k = 0; k < count * PENS; k += LANES) coloured += load(pens + (ptrdiff_t)first * PENS + k);
        double *of_group = of_edit[first / GROUP];
        of_group[0] = sum(changed);
        of_group[1] = sum(added);
        of_group[2] = sum(coloured);
    }
    together(crew, groups_of(total));
    end_products();
    if (me != 0) return;
    /* In order, whoever summed: a session that is restored goes on bit for bit. */
    double edits[3] = {0}, states[3] = {0};
    for (int i = 0; i < groups_of(total); i++)
        for (int k = 0; k < 3; k++) edits[k] += of_edit[i][k];
    for (int i = 0; i < groups_of(h2 * w2); i++)
        for (int k = 0; k < 3; k++) states[k] += of_state[i][k];
    const double weight = states[2] * net->state;
    health[0] = (float)(edits[0] / ((double)total * COEFFICIENTS));
    health[1] = (float)(edits[1] / ((double)total * CELL));
    health[2] = (float)(states[0] / ((double)h2 * w2 * net->state));
    health[3] = (float)(states[1] / (weight > 1 ? weight : 1));
    health[4] = (health[0] + health[1] + health[2] + health[3] + (float)edits[2]) * 0.0f;
}

/* `remembered` in mirage_kernels/overview.py, in place; shared as in `mirage_core`, in one phase. */
void mirage_remember(struct phase *phases, int me, int threads, int h, int w, float *words, const float *before,
                     const float *motion)
{
    struct crew crew = {phases, me, threads};
    for (int y; (y = take(&crew, h)) >= 0; done(&crew)) remember(y, h, w, words, before, motion);
    together(&crew, h);
}
