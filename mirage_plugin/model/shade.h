/* What a style makes of the surfaces that the network sees: `shade_reference` in mirage_kernels/shade.py, stage for
 * stage, for LANES cells of one reading at a time. There stands why; here is only how.
 */
#ifndef MIRAGE_SHADE_H
#define MIRAGE_SHADE_H
#include "vectors.h"

enum { BINS = 4, KINDS = 9, SURFACE = 29, KEEP = 25, WORDS = BINS * SURFACE + BINS };
enum { TRANSFORM = 12, COEFFICIENTS = BINS * TRANSFORM, ANCHORS = BINS * 4, PENS = 8 };
/* The field of noise has one value for 2x2 pixels: 4x4 in a cell. */
enum { POINTS = 16, PIXELS = 64, DETAIL = 192 };

/* As `STYLE_LAYOUT`, in natural units. */
struct style {
    float sun, sun_colour[3], ambient, ambient_colour[3], overhead, headlight, lamps, windows, window_colour[3],
        emissive, flatten, cover, cover_colour[3], wet, ground, ground_colour[3], foliage, foliage_colour[3], walls,
        wall_colour[3], objects, object_colour[3], sky, sky_top[3], sky_horizon[3], clouds, fog, fog_colour[3], bands,
        band_count, ink, ink_width, ink_detail, ink_colour[3], hatch, wash, grain, glow, glow_colour[3], posterize,
        pixels, exposure, contrast, saturation, temperature, tone, tone_dark[3], tone_light[3];
};

int mirage_core_style_numbers(void) { return sizeof(struct style) / sizeof(float); }

static const float LUMA[3] = {0.2126f, 0.7152f, 0.0722f}, PLAIN_SUN[3] = {0.75f, 0.7275f, 0.675f},
                   PLAIN_AMBIENT[3] = {0.36f, 0.38f, 0.40f}, WARMTH[3] = {0.12f, 0.0f, -0.14f};
static const float PLAIN_LAMP = 0.5f, PLAIN_GLOW = 0.9f, DARKEST = 0.12f, HELD = 0.6f,
                   SPARSE = 0.2f, COVERED = 0.48f, RAMP = 0.06f, SOFT_RAMP = 0.2f,
                   DARK_SKY = 0.03f, SHOWN_SKY = 0.25f, SCATTER = 0.5f, SCATTERED_SUN = 0.4f;

/* colour -> m . colour + c; m[in][out]. */
struct map {
    vec m[3][3], c[3];
};

static inline vec luma(const vec x[3]) { return LUMA[0] * x[0] + LUMA[1] * x[1] + LUMA[2] * x[2]; }
static inline vec mix(vec a, vec b, vec amount) { return a + amount * (b - a); }
static inline vec at_least(vec x, float low) { return greater(all(low), x); }

/* The middles of the steps that x lies on, with a ramp of half length `ramp` between them. */
static inline vec steps_of(vec x, float ramp)
{
    const vec edge = at_least(whole_below(x + 0.5f), 1.0f);
    return edge + clamp((x - edge) * (0.5f / ramp), -0.5f, 0.5f);
}

static inline void value(const struct map *t, const vec colour[3], vec out[3])
{
    for (int o = 0; o < 3; o++)
        out[o] = t->m[0][o] * colour[0] + t->m[1][o] * colour[1] + t->m[2][o] * colour[2] + t->c[o];
}

/* A paint that hides. */
static inline void covered(struct map *t, const vec paint[3], vec amount)
{
    for (int o = 0; o < 3; o++) {
        for (int i = 0; i < 3; i++) t->m[i][o] = t->m[i][o] * (1.0f - amount);
        t->c[o] = mix(t->c[o], paint[o], amount);
    }
}

/* A paint of which the brightness below shows through. */
static inline void painted(struct map *t, const float paint[3], vec amount)
{
    const vec through = 0.35f + 1.3f * luma(t->c);
    for (int i = 0; i < 3; i++) {
        const vec bright = 1.3f * luma(t->m[i]);
        for (int o = 0; o < 3; o++) t->m[i][o] = mix(t->m[i][o], paint[o] * bright, amount);
    }
    for (int o = 0; o < 3; o++) t->c[o] = mix(t->c[o], paint[o] * through, amount);
}

/* What of the style is the same for every cell. */
struct shading {
    const struct style *p;
    float fog_density, gain[3], whole;
};

static inline struct shading prepare_shading(const struct style *p)
{
    struct shading s = {.p = p};
    s.fog_density = p->fog > 0.01f ? 0.0025f * exponential(all(p->fog * 3.9f))[0] : 0.0f;
    const float exposed = exponential(all(p->exposure * 0.69314718f))[0];
    for (int o = 0; o < 3; o++) s.gain[o] = exposed * (1.0f + WARMTH[o] * p->temperature);
    s.whole = (0.5f * p->sun + 0.8f * p->ambient + 0.35f * p->headlight + 0.15f * p->lamps) / 0.77f;
    return s;
}

/* What else a reading of LANES cells comes to. */
struct painted {
    vec anchor[3];   /* the colour that it is of, in v */
    vec unmarked[3]; /* what the style makes of that before marks */
    vec kept, line, shine;
};

/* One reading of LANES cells: x are its numbers. Out come the change of v [3 out][4], and the rest. */
static void shade_reading(const struct shading *s, const vec x[SURFACE], vec change[3][4], struct painted *out)
{
    const struct style *p = s->p;
    vec most = x[3], total = {0}, kind[KINDS], said[KEEP + 1 - KINDS], plane[3];
    for (int k = 1; k < KINDS; k++) most = greater(most, x[3 + k]);
    for (int k = 0; k < KINDS; k++) total += kind[k] = exponential(x[3 + k] - most);
    total = 1.0f / total;
    for (int k = 0; k < KINDS; k++) kind[k] *= total;
    for (int k = 0; k < KEEP + 1 - KINDS; k++) said[k] = sigmoid(x[k < 3 ? k : k + KINDS]);
    for (int o = 0; o < 3; o++) plane[o] = sigmoid(x[o] + x[KEEP + 1 + o]);
    const vec sky = kind[0], ground = kind[1], foliage = kind[2], wall = kind[3], thing = kind[4], creature = kind[5],
              water = kind[6], emissive = kind[7], window = kind[8];
    const vec *colour = said, sun = said[3], openness = said[4];
    const vec lamp[3] = {said[5] * 1.5f, said[6] * 1.5f, said[7] * 1.5f};
    const vec up = said[8] * 2.0f - 1.0f, facing = said[9], near = said[10], elevation = said[11], cloud = said[12],
              line = said[13], texture_line = said[14], shine = said[15], keep = said[16];
    const vec zero = {0};
    struct map t;
    vec here[3], paint[3];

    /* From what the game shows to the surface's own colour, and its texture away from it. */
    vec unlit[3];
    const vec flat = p->flatten * (1.0f - window);
    for (int o = 0; o < 3; o++) {
        vec plain = sun * PLAIN_SUN[o] + openness * PLAIN_AMBIENT[o] + lamp[o] * PLAIN_LAMP + emissive * PLAIN_GLOW;
        unlit[o] = lesser(1.0f / at_least(plain, DARKEST), 1.5f / at_least(colour[o], 1e-3f));
        for (int i = 0; i < 3; i++) t.m[i][o] = i == o ? unlit[o] * (1.0f - flat) : zero;
        t.c[o] = unlit[o] * plane[o] * flat;
    }

    painted(&t, p->ground_colour, (ground + water) * p->ground);
    painted(&t, p->foliage_colour, foliage * p->foliage);
    painted(&t, p->wall_colour, wall * p->walls);
    painted(&t, p->object_colour, (thing + creature) * p->objects);
    /* What lies on a surface clings to what is bright of its texture, and shows it. */
    const vec fine[3] = {LUMA[0] * unlit[0], LUMA[1] * unlit[1], LUMA[2] * unlit[2]};
    const vec own = fine[0] * plane[0] + fine[1] * plane[1] + fine[2] * plane[2];
    const vec brighter = fine[0] * colour[0] + fine[1] * colour[1] + fine[2] * colour[2] - own;
    const vec clings = clamp((up - 0.35f) * 2.2f + 0.8f * brighter, 0.0f, 1.0f);
    const vec lies = clings * at_least(1.0f - creature - sky, 0.0f);
    for (int o = 0; o < 3; o++) paint[o] = all(p->cover_colour[o] * 0.94f);
    const vec on = clamp(lies * p->cover * 1.25f, 0.0f, 1.0f);
    covered(&t, paint, on);
    for (int o = 0; o < 3; o++) {
        const vec more = on * (COVERED * p->cover_colour[o]);
        for (int i = 0; i < 3; i++) t.m[i][o] += more * fine[i];
        t.c[o] -= more * own;
    }
    const vec level = clamp((up - 0.7f) * 4.0f, 0.0f, 1.0f) * (1.0f - sky) * p->wet;

    const vec hemisphere = openness * (1.0f + p->overhead * (0.6f * at_least(up, -0.5f) - 0.45f));
    const vec around = hemisphere * p->ambient + facing * (p->headlight * 0.5f), direct = sun * p->sun;
    const vec lamps[3] = {lamp[0] * p->lamps, lamp[1] * p->lamps, lamp[2] * p->lamps};
    const vec was = at_least(sun * 0.75f + openness * 0.4f + luma(lamp) * PLAIN_LAMP, 0.02f);
    const vec now = at_least(direct + around + luma(lamps), 0.02f);
    const vec brightness = root(clamp(s->whole * was / now, 0.05f, 20.0f)) * (1.0f - 0.45f * level);
    const vec scattered = direct + SCATTER * on * (SCATTERED_SUN * p->sun - direct);
    for (int o = 0; o < 3; o++) {
        vec light = (scattered * p->sun_colour[o] + around * p->ambient_colour[o] + lamps[o]) * brightness;
        for (int i = 0; i < 3; i++) t.m[i][o] *= light;
        t.c[o] *= light;
    }

    /* A band holds its brightness and lets the hue through. */
    value(&t, colour, here);
    const vec bright = at_least(luma(here), 0.02f);
    const float steps = p->band_count < 1.0f ? 1.0f : p->band_count;
    const vec stepped = steps_of(bright * steps, SOFT_RAMP) / steps;
    const vec rate = p->bands * stepped / bright, held = 1.0f - p->bands + rate;
    vec part[4];
    for (int i = 0; i < 3; i++) part[i] = rate * HELD * luma(t.m[i]);
    part[3] = rate * HELD * (luma(t.c) - bright);
    for (int o = 0; o < 3; o++) {
        const vec hue = here[o] / bright;
        for (int i = 0; i < 3; i++) t.m[i][o] = t.m[i][o] * held - hue * part[i];
        t.c[o] = t.c[o] * held - hue * part[3];
    }

    for (int o = 0; o < 3; o++) t.m[o][o] += unlit[o] * (emissive * (p->emissive * 0.9f));
    const vec lit = clamp(window * p->windows, 0.0f, 1.0f);
    for (int o = 0; o < 3; o++) {
        for (int i = 0; i < 3; i++)
            t.m[i][o] = mix(t.m[i][o], (2.2f * LUMA[i]) * unlit[i] * p->window_colour[o], lit);
        t.c[o] = mix(t.c[o], all(0.5f * p->window_colour[o]), lit);
    }
    for (int o = 0; o < 3; o++) paint[o] = all(p->sky_horizon[o]);
    covered(&t, paint, level * ((1.0f - facing) * (1.0f - facing)) * 0.85f);
    const vec shown = clamp((luma(colour) - DARK_SKY) * (1.0f / (SHOWN_SKY - DARK_SKY)), 0.0f, 1.0f);
    const vec p_sky = p->sky * shown;
    for (int o = 0; o < 3; o++) {
        const float horizon = p->sky_horizon[o];
        vec above = mix(all(horizon), all(p->sky_top[o]), elevation);
        above = mix(above, all(horizon * 0.65f + 0.35f), cloud * p->clouds);
        for (int i = 0; i < 3; i++) t.m[i][o] = mix(t.m[i][o], i == o ? 1.0f - p_sky : zero, sky);
        t.c[o] = mix(t.c[o], above * p_sky, sky);
    }
    const vec depth = clamp(4.0f / at_least(near, 1e-3f) - 4.0f, 0.0f, 400.0f);
    for (int o = 0; o < 3; o++) paint[o] = all(p->fog_colour[o]);
    covered(&t, paint, (1.0f - exponential(-(depth * s->fog_density))) * (1.0f - sky * (1.0f - 0.75f * shown)));

    /* The grade; highlights roll off, and what is out of range stays at its end. */
    const vec darkened = 1.0f - (0.35f * p->wash * (1.0f - p->ink)) * line;
    for (int o = 0; o < 3; o++) {
        const vec grade = darkened * s->gain[o];
        for (int i = 0; i < 3; i++) t.m[i][o] *= grade;
        t.c[o] *= grade;
    }
    value(&t, colour, here);
    for (int o = 0; o < 3; o++) {
        const vec over = hyperbolic_tangent(at_least(here[o] - 0.8f, 0.0f) / 0.2f);
        const vec slope = (1.0f - over * over) * p->contrast;
        const vec rolled = choose(here[o] > 0.8f, 0.8f + 0.2f * over, here[o]);
        for (int i = 0; i < 3; i++) t.m[i][o] *= slope;
        t.c[o] = t.c[o] * slope + (rolled * p->contrast - here[o] * slope) + (0.45f - 0.45f * p->contrast);
    }
    for (int i = 0; i < 4; i++) {
        vec *row = i < 3 ? t.m[i] : t.c;
        const vec grey = luma(row);
        for (int o = 0; o < 3; o++) row[o] = mix(grey, row[o], all(p->saturation));
    }
    value(&t, colour, here);
    for (int o = 0; o < 3; o++) {
        const ints beyond = (here[o] < 0.0f) | (here[o] > 1.0f);
        for (int i = 0; i < 3; i++) t.m[i][o] = choose(beyond, zero, t.m[i][o]);
        t.c[o] = choose(beyond, clamp(here[o], 0.0f, 1.0f), t.c[o]);
    }
    for (int i = 0; i < 4; i++) {
        vec *row = i < 3 ? t.m[i] : t.c;
        const vec grey = luma(row);
        for (int o = 0; o < 3; o++) {
            const vec duo = (p->tone_light[o] - p->tone_dark[o]) * grey;
            row[o] = mix(row[o], i < 3 ? duo : p->tone_dark[o] + duo, all(p->tone));
        }
    }
    value(&t, colour, here);
    for (int o = 0; o < 3; o++) paint[o] = steps_of(here[o] * 5.0f, RAMP) / 5.0f;
    covered(&t, paint, all(p->posterize * 0.9f));

    value(&t, colour, out->unmarked);
    for (int o = 0; o < 3; o++) paint[o] = all(p->ink_colour[o]);
    covered(&t, paint, clamp(texture_line * (p->ink_detail * p->ink * 1.1f), 0.0f, 1.0f));
    for (int o = 0; o < 3; o++) {
        for (int i = 0; i < 3; i++) t.m[i][o] = mix(t.m[i][o], i == o ? zero + 1.0f : zero, keep);
        t.c[o] *= 1.0f - keep;
    }

    /* With v = 2 colour - 1, as a change of v. */
    for (int o = 0; o < 3; o++) {
        for (int i = 0; i < 3; i++) change[o][i] = i == o ? t.m[i][o] - 1.0f : t.m[i][o];
        change[o][3] = t.m[0][o] + t.m[1][o] + t.m[2][o] + 2.0f * t.c[o] - 1.0f;
    }
    for (int o = 0; o < 3; o++) out->anchor[o] = colour[o] * 2.0f - 1.0f;
    out->kept = keep;
    out->line = line;
    out->shine = shine;
}

/* A field of marks: 4h rows of 4w values, with the outermost repeated once around. Rows are so long that eight values
 * can be read from any. */
static inline ptrdiff_t mark_pitch(int w) { return 4 * w + 8; }
static inline size_t mark_floats(int h, int w) { return (size_t)(4 * h + 2) * (size_t)mark_pitch(w); }
static inline float *mark_row(float *field, int w, int y) { return field + (y + 1) * mark_pitch(w) + 1; }

static void repeat_ends(float *field, int h, int w)
{
    for (int y = 0; y < 4 * h; y++) {
        float *row = mark_row(field, w, y);
        row[-1] = row[0];
        row[4 * w] = row[4 * w - 1];
    }
    memcpy(field, field + mark_pitch(w), sizeof(float) * (size_t)(4 * w + 2));
    memcpy(mark_row(field, w, 4 * h) - 1, mark_row(field, w, 4 * h - 1) - 1, sizeof(float) * (size_t)(4 * w + 2));
}

/* Where the marks of a style come from: of every cell its points of the noise; and fields of what is summed along
 * strokes and around. Any but the first is null where the style draws nothing with it. */
struct marks {
    const float *noise; /* [cells, POINTS] */
    float *strokes, *pooled;
    int w;
};

static inline int draws(const struct style *p) { return p->hatch != 0 || p->wash != 0 || p->grain != 0; }

/* Floats that `sum_noise` works in. */
static inline size_t field_floats(int h, int w) { return (size_t)(4 * h + 5) * (size_t)(4 * w + 4); }

/* The field with two values around it: its other side's where it wraps, else its nearest. */
static void spread_noise(const float *noise, int h, int w, int wraps, float *field)
{
    const int height = 4 * h, width = 4 * w, pitch = width + 4;
    for (int y = -2; y < height + 2; y++) {
        const int row = wraps ? (y + height) % height : y < 0 ? 0 : y < height ? y : height - 1;
        float *out = field + (ptrdiff_t)(y + 2) * pitch + 2;
        for (int x = 0; x < w; x++)
            memcpy(out + 4 * x, noise + ((ptrdiff_t)(row / 4) * w + x) * POINTS + row % 4 * 4, 16);
        for (int i = 1; i <= 2; i++) {
            out[-i] = wraps ? out[width - i] : out[0];
            out[width + i - 1] = wraps ? out[i - 1] : out[width - 1];
        }
    }
}

/* The field `sums` of sums of five values of the noise: along a stroke, or the mean around times five. */
static void sum_noise(const float *noise, int h, int w, int along_strokes, float *field, float *sums)
{
    const int width = 4 * w, pitch = width + 4;
    float *column = field + (ptrdiff_t)(4 * h + 4) * pitch;
    spread_noise(noise, h, w, along_strokes, field);
    for (int y = 0; y < 4 * h; y++) {
        const float *from = field + (ptrdiff_t)y * pitch;
        float *to = mark_row(sums, w, y);
        if (along_strokes) {
            for (int x = 0; x < width; x++)
                to[x] = (from[4 * pitch + x] + from[3 * pitch + x + 1] + from[2 * pitch + x + 2]
                         + from[pitch + x + 3] + from[x + 4]) * 0.4472136f;
            continue;
        }
        for (int x = 0; x < pitch; x++)
            column[x] = (from[x] + from[pitch + x] + from[2 * pitch + x] + from[3 * pitch + x] + from[4 * pitch + x])
                        * 0.2f;
        for (int x = 0; x < width; x++) to[x] = column[x] + column[x + 1] + column[x + 2] + column[x + 3] + column[x + 4];
    }
    repeat_ends(sums, h, w);
}

/* A cell of a field, at each of its pixels: the nearest value counts three quarters, down and across. */
static void spread(const float *field, int w, int y, int x, float *out)
{
    const ptrdiff_t pitch = mark_pitch(w);
    field += 4 * y * pitch + 4 * x;
    for (int row = 0; row < 4; row++, field += pitch) {
        const f8 nearest = 0.75f * load8(field + pitch);
        for (int side = 0; side < 2; side++) {
            const f8 down = nearest + 0.25f * load8(field + 2 * side * pitch);
            *(f8 *)(out + (2 * row + side) * 8) = 0.75f * in_order(down, (i8){1, 1, 2, 2, 3, 3, 4, 4})
                                                  + 0.25f * in_order(down, (i8){0, 2, 1, 3, 2, 4, 3, 5});
        }
    }
}

/* Add the marks to a cell's detail; `seen` is its colour, `shown` how much of it is not kept. */
static void draw_marks(const struct style *p, const struct marks *marks, ptrdiff_t cell, const float seen[3],
                       float shown, float *detail)
{
    float made[3][PIXELS], grain[PIXELS], pigment[PIXELS], stroke[PIXELS];
    const int y = (int)(cell / marks->w), x = (int)(cell % marks->w);
    float dark = 0.75f - (LUMA[0] * seen[0] + LUMA[1] * seen[1] + LUMA[2] * seen[2]);
    dark = dark < 0.0f ? 0.0f : dark > 1.0f ? 1.0f : dark;
    const int stroked = marks->strokes && dark > 0.02f;
    if (marks->pooled) spread(marks->pooled, marks->w, y, x, pigment);
    if (stroked) spread(marks->strokes, marks->w, y, x, stroke);
    for (int row = 0; row < 8; row++) {
        /* Grain is of 2x2 pixels, in the truth as well. Two rows of the noise are eight values. */
        const f8 two = load8(marks->noise + cell * POINTS + row / 4 * 8);
        *(f8 *)(grain + 8 * row) = row & 2 ? in_order(two, (i8){4, 4, 5, 5, 6, 6, 7, 7})
                                           : in_order(two, (i8){0, 0, 1, 1, 2, 2, 3, 3});
    }
    for (int i = 0; i < PIXELS; i += LANES) {
        vec drawn[3] = {{0}, {0}, {0}};
        if (marks->pooled)
            for (int c = 0; c < 3; c++) {
                /* Where paper is white no pigment shows. */
                const float bright = 4.0f - 4.0f * seen[c];
                const float shows = seen[c] * (bright < 0.0f ? 0.0f : bright < 1.0f ? bright : 1.0f);
                drawn[c] = load(pigment + i) * (p->wash * 0.13f * shows);
            }
        if (stroked) {
            const vec amount = sigmoid((load(stroke + i) + (3.2f * dark - 1.7f)) * 5.0f) * (p->hatch * 0.75f);
            for (int c = 0; c < 3; c++) drawn[c] += amount * (p->ink_colour[c] - seen[c] - drawn[c]);
        }
        for (int c = 0; c < 3; c++) {
            drawn[c] += load(grain + i) * (p->grain * (0.11f * seen[c] + 0.03f));
            store(made[c] + i, drawn[c] * (2.0f * shown));
        }
    }
    /* Three channels of eight pixels come to lie one after another, a third of each in every vector. */
    const i8 first = {-1, 0, 0, -1, 0, 0, -1, 0}, second = {0, -1, 0, 0, -1, 0, 0, -1};
    const i8 last = {0, 0, -1, 0, 0, -1, 0, 0};
    for (int row = 0; row < 8; row++, detail += 24) {
        const i8 red = (i8)in_order(load8(made[0] + 8 * row), (i8){0, 3, 6, 1, 4, 7, 2, 5});
        const i8 green = (i8)in_order(load8(made[1] + 8 * row), (i8){5, 0, 3, 6, 1, 4, 7, 2});
        const i8 blue = (i8)in_order(load8(made[2] + 8 * row), (i8){2, 5, 0, 3, 6, 1, 4, 7});
        *(f8 *)detail += (f8)((red & first) | (green & second) | (blue & last));
        *(f8 *)(detail + 8) += (f8)((red & second) | (green & last) | (blue & first));
        *(f8 *)(detail + 16) += (f8)((red & last) | (green & first) | (blue & second));
    }
}

/* How much of a cell's lines is drawn: all that is certain, else as much as the words say there is. */
static inline float believed(float there, float said)
{
    if (there < 0.0f) return 1.0f;
    const float part = said / (there > SPARSE ? there : SPARSE);
    return part < 1.0f ? part : 1.0f;
}

/* `shade` of `count` cells from number `first` on: `words` are rows of at least WORDS numbers, `stride` apart,
 * padded to full vectors of rows; the changes of v are added to `matrices`, the marks to `detail`; `anchors` and
 * `pens` are written. `there` [cells, 2] as in the reference. */
static void shade(const struct shading *s, const struct marks *marks, const float *words, ptrdiff_t stride,
                  ptrdiff_t first, int count, const float *there, float *matrices, float *detail, float *anchors, float *pens)
{
    const int marked = draws(s->p);
    for (int i = 0; i < count; i += LANES) {
        const int some = count - i < LANES ? count - i : LANES;
        const float *said = words + i * stride;
        vec share[BINS], most, total = {0}, seen[3] = {{0}, {0}, {0}}, kept = {0}, line = {0}, shine = {0};
        for (int b = 0; b < BINS; b++)
            for (int l = 0; l < LANES; l++) share[b][l] = said[l * stride + BINS * SURFACE + b];
        most = greater(greater(share[0], share[1]), greater(share[2], share[3]));
        for (int b = 0; b < BINS; b++) total += share[b] = exponential(share[b] - most);
        for (int b = 0; b < BINS; b++) share[b] = share[b] / total;
        for (int b = 0; b < BINS; b++) {
            /* Numbers first, cells last. */
            float across[SURFACE][LANES];
            vec x[SURFACE], change[3][4];
            struct painted made;
            for (int l = 0; l < LANES; l++)
                for (int k = 0; k < SURFACE; k++) across[k][l] = said[l * stride + b * SURFACE + k];
            for (int k = 0; k < SURFACE; k++) x[k] = load(across[k]);
            shade_reading(s, x, change, &made);
            for (int o = 0; o < 3; o++) seen[o] += made.unmarked[o] * share[b];
            kept += made.kept * share[b];
            line += made.line * share[b];
            shine += made.shine * share[b];
            float back[TRANSFORM + 4][LANES];
            for (int k = 0; k < TRANSFORM; k++) store(back[k], change[k / 4][k % 4]);
            for (int k = 0; k < 4; k++) store(back[TRANSFORM + k], k < 3 ? made.anchor[k] : share[b]);
            for (int l = 0; l < some; l++) {
                float *to = matrices + (first + i + l) * COEFFICIENTS + b * TRANSFORM;
                for (int k = 0; k < TRANSFORM; k++) to[k] += back[k][l];
                for (int k = 0; k < 4; k++) anchors[(first + i + l) * ANCHORS + 4 * b + k] = back[TRANSFORM + k][l];
            }
        }
        for (int l = 0; l < some; l++) {
            const ptrdiff_t cell = first + i + l;
            const float colour[3] = {seen[0][l], seen[1][l], seen[2][l]}, shown = 1.0f - kept[l];
            if (marked) draw_marks(s->p, marks, cell, colour, shown, detail + cell * DETAIL);
            float *pen = pens + cell * PENS;
            pen[0] = believed(there[2 * cell], line[l]) * s->p->ink * 1.1f * shown;
            pen[1] = believed(there[2 * cell + 1], shine[l]) * s->p->glow * shown;
            for (int c = 0; c < 3; c++) {
                pen[2 + c] = s->p->ink_colour[c] * 2.0f - 1.0f;
                pen[5 + c] = s->p->glow_colour[c] * 2.0f;
            }
        }
    }
}
#endif
