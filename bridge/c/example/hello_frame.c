/* The smallest game: a software-drawn animated scene, restyled where a sidecar runs, itself where none does.
 *
 *     hello_frame [frames] [endpoint] [out.ppm]
 */
#include <math.h>
#include <mirage_bridge.h>
#include <stdio.h>
#include <stdlib.h>

/* A ball over a checkered floor under a sky. */
static void draw(const mirage_frame *frame, double time_s) {
    double ball_x = 0.5 + 0.3 * cos(time_s), ball_y = 0.6 - 0.3 * fabs(sin(2 * time_s));
    for (uint32_t y = 0; y < frame->height; y++) {
        uint8_t *row = (uint8_t *)frame->pixels + (size_t)y * frame->row_pitch_bytes;
        for (uint32_t x = 0; x < frame->width; x++) {
            double u = (x + 0.5) / frame->width, v = (y + 0.5) / frame->height;
            double dx = (u - ball_x) * frame->width / frame->height, dy = v - ball_y;
            double depth_m = v > 0.5 ? 1.0 / (v - 0.5 + 1e-3) : 1000.0;
            int tile = ((int)floor((u - 0.5) * depth_m * 2) + (int)floor(depth_m + time_s)) & 1;
            uint8_t color[3] = {(uint8_t)(90 + 80 * v), (uint8_t)(140 + 80 * v), 235};
            if (v > 0.5) color[0] = color[1] = color[2] = tile ? 200 : 60;
            if (dx * dx + dy * dy < 0.02) {
                color[0] = (uint8_t)(220 - 600 * (dx + dy > 0 ? dx + dy : 0) / 2);
                color[1] = color[2] = 40;
                depth_m = 1.5;
            }
            row[4 * x] = color[0];
            row[4 * x + 1] = color[1];
            row[4 * x + 2] = color[2];
            row[4 * x + 3] = 255;
            frame->depth[(size_t)y * frame->width + x] = (float)depth_m;
        }
    }
}

static int save(const char *path, const mirage_answer *answer) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) return 0;
    fprintf(file, "P6 %u %u 255\n", answer->width, answer->height);
    for (uint32_t y = 0; y < answer->height; y++) {
        const uint8_t *row = (const uint8_t *)answer->pixels + (size_t)y * answer->row_pitch_bytes;
        for (uint32_t x = 0; x < answer->width; x++) fwrite(row + 4 * x, 1, 3, file);
    }
    return fclose(file) == 0;
}

int main(int count, char **words) {
    long frames = count > 1 ? strtol(words[1], NULL, 10) : 300;
    mirage_options options;
    mirage_options_init(&options);
    options.planes = MIRAGE_PLANE_DEPTH;
    if (count > 2) options.endpoint = words[2];

    mirage_session *session;
    int result = mirage_connect(&options, &session);
    if (result != MIRAGE_OK) {
        fprintf(stderr, "mirage: %s\n", mirage_error_string(result));
        return 1;
    }
    result = mirage_wait_ready(session, UINT64_C(2000000000));
    if (result != MIRAGE_OK) fprintf(stderr, "mirage: %s %s\n", mirage_error_string(result), mirage_refusal(session));

    for (long number = 0; number < frames; number++) {
        mirage_frame frame;
        mirage_answer answer;
        uint64_t frame_id;
        mirage_frame_init(&frame);
        mirage_answer_init(&answer);
        mirage_begin_frame(session, &frame);
        draw(&frame, (double)number / 60.0);
        mirage_end_frame(session, &frame, &frame_id);
        mirage_wait_answer(session, frame_id, UINT64_MAX, &answer);
        if (number == frames - 1 && count > 3 && !save(words[3], &answer)) perror(words[3]);
        mirage_release(session, &answer); /* an engine shows answer.pixels before this */
    }

    mirage_stats stats;
    mirage_stats_init(&stats);
    mirage_get_stats(session, &stats);
    printf("frames %llu offline %llu styled %llu late %llu dropped %llu faults %llu\n",
           (unsigned long long)stats.frames, (unsigned long long)stats.frames_offline,
           (unsigned long long)stats.styled, (unsigned long long)stats.late, (unsigned long long)stats.dropped,
           (unsigned long long)stats.faults);
    mirage_disconnect(&session);
    return 0;
}
