/* The renderer's inner loops: rays into spans, spans into pixels and planes, sprites, and the late warp.
 *
 * `renderer.py` says the same in numpy, array by array, and is the definition; a test holds the two together. Here
 * each column is walked by itself, near to far, until what it has met hides the rest. Its spans, cut to what is seen,
 * become events: from this row down, this column shows that span. A row is then one pass over arrays that lie
 * together, which the compiler turns into vectors; the only gather is that of the texels, and depth, motion and mask
 * come out of the same pass.
 *
 * Names and arithmetic follow renderer.py; float where numpy has float32, double where it has float64.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { MASK_WORLD = 1, MASK_OBJECT = 2, MASK_SKY = 3, MOST_SPANS = 256, NOTHING = -1 };

/* What stays the same from frame to frame. Mirrored by `SceneAt` in native.py: fields of 8 bytes each. */
struct scene {
    const float *low, *high;          /* [cells] metres */
    const uint8_t *rim;               /* [cells] 1 on the border of the map */
    const uint32_t *lit;              /* [texels] */
    const int32_t *face_base;         /* [2][face_mips][edges] */
    const int32_t *face_height;       /* [2][face_mips][edges] */
    const float *face_top;            /* [2][edges] metres */
    const int64_t *flat_base;         /* [2][flat_mips] */
    const int64_t *flat_pitch;        /* [flat_mips] */
    const float *slope;               /* [width] */
    const double *angle;              /* [width] arctan(slope) */
    const float *sky_scale;           /* [width] sky texels a row */
    int64_t world_width, texels, edges, face_mips, face_texels, flat_mips, flat_texels;
    int64_t sky_around, sky_up, sky_base, width, height, haze_red, haze_green, haze_blue;
    double open, roof, ceiling, tallest, focal, nearest, far, haze_from, haze, sky_inverse;
};

/* One frame: the camera now and one frame ago. Mirrored by `Shot`. */
struct shot {
    double x, y, z, yaw, sin, cos, horizon;
    double x0, y0, z0, sin0, cos0, horizon0;
};

/* Where a frame goes; null for what is not wanted. Pitches in bytes. Mirrored by `PlanesAt`. */
struct planes {
    uint8_t *pixels, *depth, *motion, *mask;
    float *iz; /* inverse depth, always; rows follow each other */
    int64_t pixels_pitch, depth_pitch, motion_pitch, mask_pitch;
};

struct span { int32_t first_row, end_row, met, face, cell, side; float time, per_row; };
/* From `row` down, `column` shows this: inverse depth `inverse + per_row * below`; a face's (or the sky's) texel is
 * `first + offset + scale * below`; `first` 0 says that the texel follows from the point on the ground. */
struct event { int32_t next, column, first; float inverse, per_row, offset, scale; };

struct work {
    int32_t *from;   /* [height] first event of each row */
    struct event *events;
    int64_t count, room;
    /* What each column shows in the current row, [width] each. */
    float *inverse, *per_row, *offset, *scale, *dx, *dz, *ahead, *aside, *centre;
    int32_t *first;
};

static void free_work(struct work *w)
{
    free(w->from);
    free(w->events);
    free(w->inverse);
    free(w->first);
}

static int row_of(float edge, float most)
{
    edge = edge > 0.0f ? edge : 0.0f;
    return (int)ceilf(edge < most ? edge : most);
}

static int add_event(struct work *w, int row, struct event event)
{
    if (w->count == w->room) {
        int64_t room = w->room * 2;
        struct event *more = realloc(w->events, room * sizeof *more);
        if (!more) return -1;
        w->events = more;
        w->room = room;
    }
    event.next = w->from[row];
    w->events[w->count] = event;
    w->from[row] = (int32_t)w->count++;
    return 0;
}

/* What pixels need to know of a span. */
static struct event described(const struct scene *s, const struct shot *shot, const struct span *span, int hanging,
                              int column, float dx, float dz)
{
    struct event event = {.column = column, .per_row = span->per_row};
    if (!span->face) return event;
    const float focal = (float)s->focal, time = span->time;
    event.inverse = 1.0f / time;
    event.per_row = 0.0f;
    float texels_per_pixel = time * (float)(s->face_texels / s->focal * 0.8);
    int64_t level = 0;
    while (level < s->face_mips - 1 && texels_per_pixel >= (float)(2 << level)) level++;
    float along = span->side < 2 ? (float)shot->z + time * dz : (float)shot->x + time * dx;
    int64_t across = (int64_t)((along - floorf(along)) * (float)s->face_texels) >> level;
    float texels = (float)(s->face_texels >> level);
    int64_t edge = (int64_t)span->cell * 4 + span->side;
    int64_t entry = (hanging ? s->face_mips * s->edges : 0) + level * s->edges + edge;
    event.first = (int32_t)(s->face_base[entry] + across * s->face_height[entry] + 1);
    event.offset = (s->face_top[(hanging ? s->edges : 0) + edge] - (float)shot->y) * texels;
    event.scale = texels * time / focal;
    return event;
}

/* Walk one column's ray and list what it shows; as `_walk`, `_cut_standing`, `_cut_hanging` and `_mark`. */
static int trace_column(const struct scene *s, const struct shot *shot, struct work *w, int column)
{
    struct span standing[MOST_SPANS], hanging[MOST_SPANS];
    int lower = 0, upper = 0;
    const int height = (int)s->height;
    const float focal = (float)s->focal, horizon = (float)shot->horizon, eye = (float)shot->y;
    const float middle = horizon - 0.5f, tallest = (float)s->tallest, roof = (float)s->roof - eye;
    const float dx = w->dx[column], dz = w->dz[column], open = (float)s->open;
    const int top = shot->horizon <= 0 ? 0 : shot->horizon >= height ? height : (int)ceilf(horizon);
    const float step_x = 1.0f / fabsf(dx), step_z = 1.0f / fabsf(dz);
    const int i = (int)shot->x, k = (int)shot->z, side_x = dx > 0 ? 0 : 1, side_z = dz > 0 ? 2 : 3;
    float next_x = (float)(dx > 0 ? i + 1 - shot->x : shot->x - i) * step_x;
    float next_z = (float)(dz > 0 ? k + 1 - shot->z : shot->z - k) * step_z;
    int cell = k * (int)s->world_width + i, side = side_z;
    int reach = height, hung = 0, was_covered = 0, under = s->high[cell] < open;
    float enter = (float)s->nearest, steepest = -1e9f, lid = 1e9f;
    for (int step = 0;; step++) {
        const float leave = next_x < next_z ? next_x : next_z;
        const float near = focal / enter, far = focal / leave;
        const float low = s->low[cell], high = s->high[cell], lift = low - eye, hang = high - eye;
        const int covered = high < open;
        int row;
        if (step && (row = row_of(middle - lift * near, (float)height)) < reach && lower < MOST_SPANS) {
            standing[lower++] = (struct span){row, reach, 2 * step, 1, cell, side, enter, 0.0f};
            reach = row;
        }
        if ((row = row_of(middle - lift * far, (float)height)) < reach && lower < MOST_SPANS) {
            standing[lower++] = (struct span){row, reach, 2 * step + 1, 0, cell, side, enter, -1.0f / (focal * lift)};
            reach = row;
        }
        if (covered && upper < MOST_SPANS - 2) {
            /* Rays above a roof are done with all that hangs: there only what stands shows. */
            if (step && !was_covered && (row = row_of(middle - roof * near, (float)top)) > hung) {
                hanging[upper++] = (struct span){hung, row, INT32_MAX, 0, cell, side, enter, 0.0f};
                hung = row;
            }
            if (step && (row = row_of(middle - hang * near, (float)top)) > hung) {
                hanging[upper++] = (struct span){hung, row, 2 * step, 1, cell, side, enter, 0.0f};
                hung = row;
            }
            if ((row = row_of(middle - hang * far, (float)top)) > hung) {
                hanging[upper++] = (struct span){hung, row, 2 * step + 1, 0, cell, side, enter, -1.0f / (focal * hang)};
                hung = row;
            }
        }
        /* Behind the outer wall nothing counts. */
        if (s->rim[cell]) break;
        if (step) {
            float slope = lift / enter;
            steepest = slope > steepest ? slope : steepest;
            under = under && covered;
            if (under && hang / leave < lid) lid = hang / leave;
            float highest = (tallest - eye) / leave;
            if (steepest >= (lid < highest ? lid : highest)) break;
        }
        was_covered = covered;
        enter = leave;
        if (next_x < next_z) {
            side = side_x;
            cell += dx > 0 ? 1 : -1;
            next_x += step_x;
        } else {
            side = side_z;
            cell += (int)(dz > 0 ? s->world_width : -s->world_width);
            next_z += step_z;
        }
    }
    /* From the top row down: of what stands and what hangs, the nearer; the sky where neither is. */
    int shown = INT32_MIN, over = 0, stands = lower;
    for (int y = 0; y < height;) {
        while (over < upper && hanging[over].end_row <= y) over++;
        while (stands > 0 && (stands == lower ? reach : standing[stands].end_row) <= y) stands--;
        int end = stands == lower ? reach : standing[stands].end_row;
        const int met = stands == lower ? INT32_MAX : standing[stands].met;
        int which = stands == lower ? NOTHING : stands;
        if (over < upper) {
            end = hanging[over].end_row < end ? hanging[over].end_row : end;
            if (hanging[over].met < met) which = MOST_SPANS + over;
        }
        if (which != shown) {
            struct event event;
            if (which == NOTHING) {
                double turn = (shot->yaw + s->angle[column]) / (2 * 3.14159265358979323846);
                int64_t around = (int64_t)((turn - floor(turn)) * (double)s->sky_around) % s->sky_around;
                event = (struct event){.column = column, .first = (int32_t)(around * s->sky_up + s->sky_base),
                                       .inverse = (float)s->sky_inverse, .scale = s->sky_scale[column]};
            } else if (which >= MOST_SPANS) {
                event = described(s, shot, &hanging[over], 1, column, dx, dz);
            } else {
                event = described(s, shot, &standing[which], 0, column, dx, dz);
            }
            if (add_event(w, y, event)) return -1;
            shown = which;
        }
        y = end > y ? end : y + 1;
    }
    return 0;
}

/* float32 as float16, to nearest, halves away from zero; what is too small for a normal half becomes 0. */
static inline uint32_t half_bits(float value)
{
    union { float f; int32_t i; } raw = {value};
    int32_t bits = ((raw.i & 0x7FFFFFFF) + (0x1000 - (112 << 23))) >> 13;
    bits = bits > 0 ? bits : 0;
    bits = bits < 0x7BFF ? bits : 0x7BFF;
    return (uint32_t)(bits | ((raw.i >> 16) & 0x8000));
}

/* (colour * (256 - lost) + haze * lost) / 256 on packed colours: red and blue together, then green. */
static inline uint32_t hazy(uint32_t colour, uint32_t lost, uint32_t haze_pair, uint32_t haze_green)
{
    uint32_t keep = 256u - lost;
    uint32_t pair = (((colour & 0x00FF00FFu) * keep + lost * haze_pair) >> 8) & 0x00FF00FFu;
    uint32_t green = ((colour >> 8) & 0xFFu) * keep + lost * haze_green;
    return pair | (green & 0xFF00u) | 0xFF000000u;
}

struct row { float below, texels, at_x, at_z; int32_t pitch, base; };

/* Which mip of the ground or the ceiling a row shows, and where it lies. */
static struct row row_at(const struct scene *s, const struct shot *shot, int y)
{
    struct row row;
    row.below = (y + 0.5f) - (float)shot->horizon;
    double drop = row.below > 0 ? shot->y : s->ceiling - shot->y, away = fabs((double)row.below);
    double far = drop * s->focal / (away > 0.5 ? away : 0.5), ratio = far / drop;
    double footprint = far / s->focal * sqrt(ratio > 1 ? ratio : 1) * (double)s->flat_texels * 0.62;
    int64_t level = 0;
    while (level < s->flat_mips - 1 && footprint >= (double)(2 << level)) level++;
    row.texels = (float)((double)s->flat_texels / (double)(1 << level));
    row.at_x = row.texels * (float)shot->x;
    row.at_z = row.texels * (float)shot->z;
    row.pitch = (int32_t)s->flat_pitch[level];
    row.base = (int32_t)s->flat_base[(row.below < 0 ? s->flat_mips : 0) + level];
    return row;
}

static void colour_row(const struct scene *s, const struct work *w, struct row row, float *restrict iz,
                       uint32_t *restrict out)
{
    const float *restrict inverse = w->inverse, *restrict per_row = w->per_row, *restrict offset = w->offset;
    const float *restrict scale = w->scale, *restrict dx = w->dx, *restrict dz = w->dz;
    const int32_t *restrict first = w->first;
    const uint32_t *restrict lit = s->lit;
    const int32_t last = (int32_t)s->texels - 1, width = (int32_t)s->width;
    const float open_sky = (float)(2 * s->sky_inverse), haze = (float)s->haze;
    const float whole = (float)(256 * (s->haze_from + s->haze));
    const uint32_t haze_pair = (uint32_t)(s->haze_red | s->haze_blue << 16), haze_green = (uint32_t)s->haze_green;
    for (int32_t x = 0; x < width; x++) {
        float near = inverse[x] + per_row[x] * row.below, depth = 1.0f / near, texels = row.texels * depth;
        iz[x] = near;
        int32_t flat = (int32_t)(texels * dz[x] + row.at_z) * row.pitch + row.base
                     + (int32_t)(texels * dx[x] + row.at_x);
        int32_t texel = (first[x] ? first[x] : flat) + (int32_t)(offset[x] + scale[x] * row.below);
        texel = texel > 0 ? texel : 0;
        texel = texel < last ? texel : last;
        int32_t lost = (int32_t)(256.0f - whole / (depth + haze));
        lost = lost > 0 && near > open_sky ? lost : 0;
        out[x] = hazy(lit[texel], (uint32_t)lost, haze_pair, haze_green);
    }
}

struct turned { float focal, tx, tz, rise, height, place; };

/* Motion of one row from its inverse depths, float16 (x, y) as one word; as `_write_motion`. */
static void motion_row(const struct work *w, struct turned t, int width, const float *restrict iz,
                       uint32_t *restrict out)
{
    const float *restrict ahead = w->ahead, *restrict aside = w->aside, *restrict centre = w->centre;
    for (int x = 0; x < width; x++) {
        float a = iz[x] * t.tz + ahead[x];
        a = t.focal / (a > 1e-2f ? a : 1e-2f);
        float mx = (iz[x] * t.tx + aside[x]) * a - centre[x];
        float my = t.place - (iz[x] * t.rise + t.height) * a;
        out[x] = half_bits(mx) | half_bits(my) << 16;
    }
}

static struct turned turned(const struct scene *s, const struct shot *shot, struct work *w)
{
    const double turn_c = shot->cos * shot->cos0 + shot->sin * shot->sin0;
    const double turn_s = shot->sin * shot->cos0 - shot->cos * shot->sin0;
    const double mx = shot->x - shot->x0, mz = shot->z - shot->z0;
    for (int x = 0; x < s->width; x++) {
        w->ahead[x] = (float)turn_c - (float)turn_s * s->slope[x];
        w->aside[x] = (float)turn_s + (float)turn_c * s->slope[x];
        w->centre[x] = x + (float)(0.5 - s->width / 2.0);
    }
    return (struct turned){.focal = (float)s->focal, .tx = (float)(mx * shot->cos0 - mz * shot->sin0),
                           .tz = (float)(mx * shot->sin0 + mz * shot->cos0), .rise = (float)(shot->y - shot->y0)};
}

static int make_work(const struct scene *s, const struct shot *shot, struct work *w)
{
    const int64_t width = s->width;
    w->count = 0;
    w->room = 16 * width;
    w->from = malloc(s->height * sizeof *w->from);
    w->events = malloc(w->room * sizeof *w->events);
    float *floats = malloc(9 * width * sizeof *floats);
    w->inverse = floats;
    w->first = calloc(width, sizeof *w->first);
    if (!w->from || !w->events || !floats || !w->first) return -1;
    w->per_row = floats + width, w->offset = floats + 2 * width, w->scale = floats + 3 * width;
    w->dx = floats + 4 * width, w->dz = floats + 5 * width;
    w->ahead = floats + 6 * width, w->aside = floats + 7 * width, w->centre = floats + 8 * width;
    for (int64_t y = 0; y < s->height; y++) w->from[y] = NOTHING;
    const float sin = (float)shot->sin, cos = (float)shot->cos;
    for (int64_t x = 0; x < width; x++) {
        float dx = sin + s->slope[x] * cos, dz = cos - s->slope[x] * sin;
        w->dx[x] = fabsf(dx) < 1e-6f ? 1e-6f : dx;
        w->dz[x] = fabsf(dz) < 1e-6f ? 1e-6f : dz;
    }
    return 0;
}

/* Draw the world, without sprites. Returns 0, or -1 where memory is short. */
int arena_draw(const struct scene *s, const struct shot *shot, const struct planes *out)
{
    struct work w = {0};
    int failed = make_work(s, shot, &w);
    for (int x = 0; x < s->width && !failed; x++) failed = trace_column(s, shot, &w, x);
    if (failed) {
        free_work(&w);
        return -1;
    }
    struct turned t = turned(s, shot, &w);
    const float far = (float)s->far, open_sky = (float)(2 * s->sky_inverse);
    for (int y = 0; y < s->height; y++) {
        for (int32_t e = w.from[y]; e != NOTHING; e = w.events[e].next) {
            const struct event *event = &w.events[e];
            const int32_t x = event->column;
            w.inverse[x] = event->inverse;
            w.per_row[x] = event->per_row;
            w.offset[x] = event->offset;
            w.scale[x] = event->scale;
            w.first[x] = event->first;
        }
        struct row row = row_at(s, shot, y);
        float *iz = out->iz + y * s->width;
        colour_row(s, &w, row, iz, (uint32_t *)(out->pixels + y * out->pixels_pitch));
        if (out->depth) {
            float *restrict depth = (float *)(out->depth + y * out->depth_pitch);
            for (int x = 0; x < s->width; x++) {
                float d = 1.0f / iz[x];
                depth[x] = d < far ? d : far;
            }
        }
        if (out->motion) {
            t.height = ((float)shot->horizon - (y + 0.5f)) / t.focal;
            t.place = (float)shot->horizon0 - (y + 0.5f);
            motion_row(&w, t, (int)s->width, iz, (uint32_t *)(out->motion + y * out->motion_pitch));
        }
        if (out->mask) {
            uint8_t *restrict mask = out->mask + y * out->mask_pitch;
            for (int x = 0; x < s->width; x++) mask[x] = iz[x] > open_sky ? MASK_WORLD : MASK_SKY;
        }
    }
    free_work(&w);
    return 0;
}

/* A billboard in this frame and in the one before. Mirrored by `BILLBOARD`. */
struct billboard {
    const uint32_t *texels;
    const uint8_t *solid;
    int64_t rows, columns, x0, x1, y0, y1;
    double left, top, wide, tall;
    double inverse;                                /* 1 / its depth */
    double light[3], haze[3];                      /* colour = texel * light + haze, in 0..255 */
    double across, size, across0, size0, foot, foot0; /* where its foot's middle is, and pixels a metre; before: 0 */
};

/* Draw a billboard wherever nothing nearer stands. */
static void draw_sprite(const struct scene *s, const struct shot *shot, const struct planes *out, const struct billboard *b)
{
    const float inverse = (float)b->inverse, depth = 1.0f / inverse;
    const float light[3] = {(float)b->light[0], (float)b->light[1], (float)b->light[2]};
    const float haze[3] = {(float)b->haze[0], (float)b->haze[1], (float)b->haze[2]};
    const double middle = s->width / 2.0;
    for (int64_t y = b->y0; y < b->y1; y++) {
        int64_t row = (int64_t)((y + 0.5 - b->top) / b->tall * b->rows);
        row = row < 0 ? 0 : row < b->rows ? row : b->rows - 1;
        const uint32_t *texels = b->texels + row * b->columns;
        const uint8_t *solid = b->solid + row * b->columns;
        uint32_t *pixels = (uint32_t *)(out->pixels + y * out->pixels_pitch);
        float *iz = out->iz + y * s->width;
        float *depths = out->depth ? (float *)(out->depth + y * out->depth_pitch) : NULL;
        uint32_t *motion = out->motion ? (uint32_t *)(out->motion + y * out->motion_pitch) : NULL;
        uint8_t *mask = out->mask ? out->mask + y * out->mask_pitch : NULL;
        const double v = (shot->horizon - (y + 0.5)) / b->size + b->foot;
        const uint32_t my = half_bits((float)(shot->horizon0 - (b->foot0 + v) * b->size0 - (y + 0.5))) << 16;
        for (int64_t x = b->x0; x < b->x1; x++) {
            if (iz[x] >= inverse) continue;
            int64_t column = (int64_t)((x + 0.5 - b->left) / b->wide * b->columns);
            column = column < 0 ? 0 : column < b->columns ? column : b->columns - 1;
            if (!solid[column]) continue;
            uint32_t texel = texels[column], colour = 0xFF000000u;
            for (int c = 0; c < 3; c++) {
                float value = (float)(texel >> 8 * c & 0xFFu) * light[c] + haze[c];
                colour |= (uint32_t)(value < 255.0f ? value : 255.0f) << 8 * c;
            }
            pixels[x] = colour;
            iz[x] = inverse;
            if (depths) depths[x] = depth;
            if (mask) mask[x] = MASK_OBJECT;
            if (motion) {
                const double u = (x + 0.5 - middle) / b->size - b->across;
                motion[x] = half_bits((float)(middle + (b->across0 + u) * b->size0 - (x + 0.5))) | my;
            }
        }
    }
}

void arena_sprites(const struct scene *s, const struct shot *shot, const struct planes *out,
                   const struct billboard *billboards, int64_t count)
{
    for (int64_t i = 0; i < count; i++) draw_sprite(s, shot, out, billboards + i);
}

/* Where a row of pixels was, by its inverse depths: px, py [width], inside the frame. */
static void places_before(const struct work *w, struct turned t, int32_t width, int32_t height,
                          const float *restrict near, float *restrict px, float *restrict py)
{
    const float *restrict ahead = w->ahead, *restrict aside = w->aside;
    const float right = width - 1.0f, bottom = height - 1.0f, middle = width / 2.0f - 0.5f;
    for (int32_t x = 0; x < width; x++) {
        float a = near[x] * t.tz + ahead[x];
        a = t.focal / (a > 1e-2f ? a : 1e-2f);
        float u = (near[x] * t.tx + aside[x]) * a + middle, v = t.place - (near[x] * t.rise + t.height) * a;
        u = u > 0.0f ? u : 0.0f;
        v = v > 0.0f ? v : 0.0f;
        px[x] = u < right ? u : right;
        py[x] = v < bottom ? v : bottom;
    }
}

/* The inverse depths that stand there, brought from the picture's camera to the new one. */
static void depths_there(const struct work *w, struct turned t, int32_t width, const float *restrict iz,
                         const float *restrict px, const float *restrict py, float *restrict near)
{
    const float *restrict ahead = w->ahead;
    for (int32_t x = 0; x < width; x++) {
        float there = iz[(int32_t)(py[x] + 0.5f) * width + (int32_t)(px[x] + 0.5f)], rest = 1.0f - there * t.tz;
        near[x] = there * ahead[x] / (rest > 0.1f ? rest : 0.1f);
    }
}

/* A row of the picture at these places, between four pixels, in sixteenths. */
static void colours_there(int32_t width, int32_t height, const uint32_t *restrict from, int32_t pitch,
                          const float *restrict px, const float *restrict py, uint32_t *restrict to)
{
    for (int32_t x = 0; x < width; x++) {
        int32_t ix = (int32_t)px[x], iy = (int32_t)py[x];
        uint32_t fx = (uint32_t)(int32_t)((px[x] - (float)ix) * 16.0f + 0.5f);
        uint32_t fy = (uint32_t)(int32_t)((py[x] - (float)iy) * 16.0f + 0.5f);
        int32_t at = iy * pitch + ix, dx = ix < width - 1 ? 1 : 0, dy = iy < height - 1 ? pitch : 0;
        uint32_t a = from[at], b = from[at + dx], c = from[at + dy], d = from[at + dx + dy];
        uint32_t wa = (16 - fx) * (16 - fy), wb = fx * (16 - fy), wc = (16 - fx) * fy, wd = fx * fy;
        uint32_t pair = (a & 0xFF00FFu) * wa + (b & 0xFF00FFu) * wb + (c & 0xFF00FFu) * wc + (d & 0xFF00FFu) * wd;
        uint32_t green = (a >> 8 & 0xFFu) * wa + (b >> 8 & 0xFFu) * wb + (c >> 8 & 0xFFu) * wc + (d >> 8 & 0xFFu) * wd;
        to[x] = ((pair + 0x800080u) >> 8 & 0xFF00FFu) | ((green + 0x80u) & 0xFF00u) | 0xFF000000u;
    }
}

/* Show a picture that was drawn from one camera as it would look from another, by its own inverse depths.
 *
 * `shot` has the new camera as the one now and the picture's as the one before: where a pixel was is its motion. The
 * depth it needs stands at the place that it leads to; two rounds find it, for a camera that has moved little. What
 * comes into sight is stretched from beside it. */
int arena_warp(const struct scene *s, const struct shot *shot, const float *iz, const uint8_t *pixels, int64_t pitch,
               uint8_t *out, int64_t out_pitch)
{
    struct work w = {0};
    if (make_work(s, shot, &w)) {
        free_work(&w);
        return -1;
    }
    struct turned t = turned(s, shot, &w);
    const int32_t width = (int32_t)s->width, height = (int32_t)s->height;
    /* Not needed here for what their names say. */
    float *px = w.dx, *py = w.dz, *near = w.inverse;
    t.place = (float)shot->horizon0 - 0.5f;
    for (int32_t y = 0; y < height; y++) {
        t.height = ((float)shot->horizon - (y + 0.5f)) / t.focal;
        for (int32_t x = 0; x < width; x++) near[x] = iz[y * width + x];
        for (int round = 0; round < 2; round++) {
            places_before(&w, t, width, height, near, px, py);
            depths_there(&w, t, width, iz, px, py, near);
        }
        places_before(&w, t, width, height, near, px, py);
        colours_there(width, height, (const uint32_t *)pixels, (int32_t)(pitch / 4), px, py,
                      (uint32_t *)(out + y * out_pitch));
    }
    free_work(&w);
    return 0;
}
