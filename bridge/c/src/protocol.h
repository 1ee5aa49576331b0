/* The byte layouts of PROTOCOL.md; section numbers are its own. */
#ifndef MIRAGE_PROTOCOL_H
#define MIRAGE_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

/* 1, 2 */
enum {
    MIRAGE_MAJOR = 1,
    MIRAGE_MINOR = 0,
    MIRAGE_MAX_CONTROL_BYTES = 65536,
    MIRAGE_MAX_STYLE_BYTES = 61440,
    MIRAGE_MAX_SIDE_PIXELS = 16384,
    MIRAGE_IDENTITY_BYTES = 16
};

/* 4 */
enum {
    MIRAGE_PAGE = 4096,
    MIRAGE_GAME_LINE = 4096,
    MIRAGE_HOST_LINE = 4608,
    MIRAGE_SLOTS_OFFSET = 8192,
    MIRAGE_SLOT_HEADER_BYTES = 256,
    MIRAGE_FRAME_SLOTS = 4,
    MIRAGE_ANSWER_SLOTS = 5,
    MIRAGE_PINS = 2,
    MIRAGE_STATE_FREE = 0,
    MIRAGE_STATE_WRITING = 1,
    MIRAGE_STATE_READY = 2
};

/* 4.1; the machine must be little-endian, which session.c asserts */
typedef struct mirage_segment_header {
    char magic[8];
    uint16_t major;
    uint16_t minor;
    uint32_t header_bytes;
    uint32_t generation;
    uint16_t frame_slots;
    uint16_t answer_slots;
    uint64_t total_bytes;
    uint8_t token[16];
    uint32_t width;
    uint32_t height;
    uint16_t pixel_format;
    uint16_t planes;
    uint32_t row_pitch_bytes;
} mirage_segment_header;
_Static_assert(sizeof(mirage_segment_header) == 64, "PROTOCOL 4.1");
_Static_assert(offsetof(mirage_segment_header, total_bytes) == 24, "PROTOCOL 4.1");
_Static_assert(offsetof(mirage_segment_header, row_pitch_bytes) == 60, "PROTOCOL 4.1");

/* 4.2: one side's words; each is written by that side alone */
typedef struct mirage_line {
    _Atomic uint64_t progress;
    _Atomic uint64_t newest;
    _Atomic uint64_t pin0;
    _Atomic uint64_t pin1;
    _Atomic uint64_t asleep;
} mirage_line;
_Static_assert(sizeof(mirage_line) == 40, "PROTOCOL 4.2");

/* 6.1 */
typedef struct mirage_frame_record {
    char magic[4];
    uint16_t major;
    uint16_t slot;
    uint32_t generation;
    uint32_t flags;
    uint64_t sequence;
    uint64_t frame_id;
    uint64_t input_ns;
    uint64_t captured_ns;
    uint64_t published_ns;
    uint64_t budget_ns;
    uint64_t seed;
    uint32_t style_epoch;
    float strength;
    uint8_t reserved[48];
} mirage_frame_record;
_Static_assert(sizeof(mirage_frame_record) == 128, "PROTOCOL 6.1");
_Static_assert(offsetof(mirage_frame_record, reserved) == 80, "PROTOCOL 6.1");

/* 6.2 */
typedef struct mirage_answer_record {
    char magic[4];
    uint16_t major;
    uint16_t slot;
    uint32_t generation;
    uint32_t flags;
    uint64_t sequence;
    uint64_t frame_id;
    uint64_t frame_published_ns;
    uint64_t published_ns;
    uint64_t service_ns;
    uint32_t style_epoch;
    uint16_t kind;
    uint16_t reason_bytes;
    uint32_t edit_age_frames;
    uint32_t working_width;
    uint32_t working_height;
    uint32_t skipped;
    char reason[48];
} mirage_answer_record;
_Static_assert(sizeof(mirage_answer_record) == 128, "PROTOCOL 6.2");
_Static_assert(offsetof(mirage_answer_record, reason) == 80, "PROTOCOL 6.2");

/* 4.3 */
typedef struct mirage_slot {
    _Atomic uint64_t state;
    uint8_t unused0[56];
    uint8_t record[128];
    uint8_t unused1[64];
} mirage_slot;
_Static_assert(sizeof(mirage_slot) == MIRAGE_SLOT_HEADER_BYTES, "PROTOCOL 4.3");
_Static_assert(offsetof(mirage_slot, record) == 64, "PROTOCOL 4.3");

/* What was negotiated, in the numbers of section 3. */
typedef struct mirage_offer {
    uint32_t width, height;
    uint32_t pixel_format, planes, orientation, color_space, delivery, row_pitch_bytes;
    uint32_t depth_kind, motion_unit, motion_direction;
    double depth_near_m, depth_far_m, motion_not_written;
    uint64_t budget_ns;
} mirage_offer;

/* 4: where everything stands, computed and never read from a peer. Offset 0 marks a plane that is absent. */
typedef struct mirage_layout {
    uint32_t row_pitch_bytes;
    uint64_t pixels_bytes, depth_offset, motion_offset, mask_offset;
    uint64_t frame_slot_bytes, answer_slot_bytes, frames_offset, answers_offset, total_bytes;
} mirage_layout;

/* The layout of an offer, or 0 if the offer is out of range. */
int mirage_layout_of(const mirage_offer *offer, mirage_layout *layout);
/* Whether two offers are the same. */
int mirage_offer_equal(const mirage_offer *a, const mirage_offer *b);

#endif
