/* Mirage bridge, C ABI: frames from a game to a sidecar and back, redrawn.
 *
 * The contract between the two processes is PROTOCOL.md; this is a game's side of it, for ipc:// addresses.
 *
 * - Every struct begins with `size`: set it with the matching mirage_*_init, so that a later library knows
 *   which fields the caller has.
 * - Functions return MIRAGE_OK (0), a positive "nothing yet", or a negative error; mirage_error_string explains.
 * - No function blocks but mirage_wait_ready and mirage_wait_answer, and those no longer than they are told
 *   (mirage_disconnect may take 200 ms to say goodbye).
 * - An absent, dead, hung or lying sidecar is no error: frames are then private memory, answers the game's own frame.
 * - No global state. One thread at a time may use a session; different sessions are independent.
 * - This library allocates when it connects, resizes, or sends and reads control messages, and never for a frame.
 * - Times are nanoseconds of CLOCK_MONOTONIC; sizes are pixels unless named _bytes.
 */
#ifndef MIRAGE_BRIDGE_H
#define MIRAGE_BRIDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define MIRAGE_API __declspec(dllexport)
#else
#define MIRAGE_API __attribute__((visibility("default")))
#endif

#define MIRAGE_BRIDGE_VERSION_MAJOR 1
#define MIRAGE_BRIDGE_VERSION_MINOR 0

/* Results. */
enum {
    MIRAGE_OK = 0,
    MIRAGE_NOT_YET = 1,         /* mirage_wait_ready: the time ran out */
    MIRAGE_E_ARGUMENT = -1,     /* a null pointer, a `size` that is no version's, a value out of range */
    MIRAGE_E_ENDPOINT = -2,     /* not ipc:///absolute/path, too long, or in a directory others can enter */
    MIRAGE_E_MEMORY = -3,       /* the process has no memory left */
    MIRAGE_E_FRAME = -4,        /* this frame was ended or given up already */
    MIRAGE_E_HELD = -5,         /* two answers are held: release one first */
    MIRAGE_E_TOO_LARGE = -6,    /* a style over 61440 bytes packed */
    MIRAGE_E_SOCKET = -7,       /* ZeroMQ could not make a socket; errno says why */
    MIRAGE_E_CLOCK = -8         /* the clock or the random source failed; errno says why */
};

/* What mirage_state returns. */
enum {
    MIRAGE_OFFLINE = 0,
    MIRAGE_CONNECTING = 1,
    MIRAGE_READY = 2,
    MIRAGE_REFUSED = 3
};

/* Numbers of PROTOCOL.md section 3, in its order. */
enum { MIRAGE_RGBA8 = 0, MIRAGE_BGRA8 = 1, MIRAGE_RGB8 = 2, MIRAGE_RGB10A2 = 3, MIRAGE_RGBA16F = 4 };
enum { MIRAGE_PLANE_DEPTH = 1, MIRAGE_PLANE_MOTION = 2, MIRAGE_PLANE_MASK = 4 };
enum { MIRAGE_TOP_DOWN = 0, MIRAGE_BOTTOM_UP = 1 };
enum { MIRAGE_SRGB = 0, MIRAGE_LINEAR = 1 };
enum { MIRAGE_DELIVERY_WAIT = 0, MIRAGE_DELIVERY_NEWEST = 1, MIRAGE_DELIVERY_LOCKED = 2 };
enum { MIRAGE_DEPTH_LINEAR_METRES = 0, MIRAGE_DEPTH_REVERSED_Z = 1 };
enum { MIRAGE_MOTION_PIXELS = 0, MIRAGE_MOTION_UV = 1 };
enum { MIRAGE_MOTION_TO_PREVIOUS = 0, MIRAGE_MOTION_TO_CURRENT = 1 };
enum { MIRAGE_STYLED = 0, MIRAGE_REPROJECTED = 1, MIRAGE_SOURCE = 2 };

/* One connection; opaque. */
typedef struct mirage_session mirage_session;

/* What a game asks for. mirage_options_init gives 640x360 RGBA8, no planes, style "snow", 16.67 ms. */
typedef struct mirage_options {
    uint32_t size;              /* sizeof(mirage_options) */
    uint32_t width, height;     /* 1 to 16384 */
    uint32_t pixel_format;      /* MIRAGE_RGBA8 ... */
    uint32_t planes;            /* MIRAGE_PLANE_* or-ed: the planes the game will write */
    uint32_t orientation;
    uint32_t color_space;
    uint32_t delivery;
    uint32_t row_pitch_bytes;   /* 0: rows without a gap */
    uint32_t depth_kind;
    double depth_near_m;        /* reversed Z alone */
    double depth_far_m;
    uint32_t motion_unit;
    uint32_t motion_direction;
    float motion_not_written;   /* NaN by default; 0 for Unreal */
    float strength;             /* 0 to 1 */
    uint64_t seed;              /* up to INT64_MAX */
    uint64_t budget_ns;         /* how long after mirage_end_frame an answer is still wanted */
    const char *endpoint;       /* NULL: $MIRAGE_ENDPOINT, else the user's default */
    const char *style;          /* a style's name; "" for the sidecar's own */
    uint32_t hold_frames;       /* where none comes in time, show the last answer again for so many frames */
    uint32_t reserved;
} mirage_options;

/* A frame to draw into, from mirage_begin_frame until mirage_end_frame. Planes not asked for are NULL. */
typedef struct mirage_frame {
    uint32_t size;              /* sizeof(mirage_frame) */
    uint32_t in_shared_memory;  /* 0: private, there is no sidecar, and the frame will not be sent */
    uint32_t width, height;
    uint32_t row_pitch_bytes;   /* of the pixels; the planes have rows without a gap */
    uint32_t camera_cut;        /* set to 1 if this frame has nothing to do with the one before */
    void *pixels;
    float *depth;
    uint16_t *motion;           /* halves: x, y */
    uint8_t *mask;              /* 0: HUD, keep; 1: world; 2: moving objects; 3: sky; 4 to 255: world, regions of one's own */
    uint64_t input_ns;          /* when the input was read; 0: unknown */
    uint64_t captured_ns;       /* when the frame was drawn; 0: when it is ended */
    uint64_t serial;            /* the library's own */
} mirage_frame;

/* Something to show, always. Valid until mirage_release; where `kind` is MIRAGE_SOURCE, until the next
 * mirage_end_frame. */
typedef struct mirage_answer {
    uint32_t size;              /* sizeof(mirage_answer) */
    uint32_t answered;          /* 0: none came in time; pixels are the game's own last frame, or see hold_frames */
    uint32_t kind;              /* MIRAGE_STYLED ... */
    uint32_t width, height;
    uint32_t row_pitch_bytes;
    uint32_t style_epoch;       /* of the style in the picture, see mirage_set_style */
    uint32_t edit_age_frames;
    uint32_t working_width, working_height;
    const void *pixels;
    uint64_t frame_id;
    uint64_t service_ns;
    uint64_t published_ns;
    char reason[64];            /* text, zero-terminated */
    void *held;                 /* the library's own */
    uint64_t serial;
} mirage_answer;

/* Counts since mirage_connect. */
typedef struct mirage_stats {
    uint32_t size;              /* sizeof(mirage_stats) */
    uint32_t reserved;
    uint64_t frames;            /* published to a sidecar */
    uint64_t frames_offline;    /* drawn into private memory */
    uint64_t styled, reprojected, source;   /* answers received, by kind */
    uint64_t late;              /* waits that ended without an answer */
    uint64_t dropped;           /* frames the sidecar passed over for newer ones */
    uint64_t reconnects;
    uint64_t faults;            /* what broke the protocol */
} mirage_stats;

/* Set `size` and the defaults. */
MIRAGE_API void mirage_options_init(mirage_options *options);
MIRAGE_API void mirage_frame_init(mirage_frame *frame);
MIRAGE_API void mirage_answer_init(mirage_answer *answer);
MIRAGE_API void mirage_stats_init(mirage_stats *stats);

/* Make a session; succeeds at once whether or not a sidecar is there. */
MIRAGE_API int mirage_connect(const mirage_options *options, mirage_session **session);
/* Say goodbye, free everything and set *session to NULL. Frames are invalid from now on, answers when they are given back.
 * In a child of fork() it leaves everything to the parent. */
MIRAGE_API void mirage_disconnect(mirage_session **session);

MIRAGE_API int mirage_state(const mirage_session *session);
/* The sidecar's sentence if it refused the session or the last style, else "". Valid until the next call. */
MIRAGE_API const char *mirage_refusal(const mirage_session *session);
/* Wait until frames would reach a sidecar: MIRAGE_OK, or MIRAGE_NOT_YET if not ready in time or refused. */
MIRAGE_API int mirage_wait_ready(mirage_session *session, uint64_t timeout_ns);

/* Something to draw into. A frame begun and not ended is given up. */
MIRAGE_API int mirage_begin_frame(mirage_session *session, mirage_frame *frame);
/* Publish it; *frame_id is 1, 2, ... */
MIRAGE_API int mirage_end_frame(mirage_session *session, mirage_frame *frame, uint64_t *frame_id);

/* The newest answer, shown again if nothing newer came; the game's own frame if that is over 250 ms old. */
MIRAGE_API int mirage_poll_answer(mirage_session *session, mirage_answer *answer);
/* The answer to frame_id or newer; once its budget or timeout_ns has passed, the last one again (see hold_frames) or the
 * game's own frame. */
MIRAGE_API int mirage_wait_answer(mirage_session *session, uint64_t frame_id, uint64_t timeout_ns,
                                  mirage_answer *answer);
/* Give an answer back; its pixels may change from now on. Safe to repeat, and after mirage_disconnect with a session of
 * NULL: an answer keeps its memory until then. At most two are held at once. */
MIRAGE_API int mirage_release(mirage_session *session, mirage_answer *answer);

/* Change the style from the next frame on; *epoch (may be NULL) is what answers in it carry. */
MIRAGE_API int mirage_set_style(mirage_session *session, const char *name, uint32_t *epoch);
/* The same with any msgpack value (a map of parameters, a mix, styles of regions: docs/STYLES.md). */
MIRAGE_API int mirage_set_style_msgpack(mirage_session *session, const void *data, size_t size_bytes,
                                        uint32_t *epoch);
MIRAGE_API int mirage_set_strength(mirage_session *session, float strength);
/* Change the size from the next frame on; frames are private until the sidecar agrees. */
MIRAGE_API int mirage_resize(mirage_session *session, uint32_t width, uint32_t height);
/* Say that no frames will come, and that they come again. */
MIRAGE_API int mirage_pause(mirage_session *session);
MIRAGE_API int mirage_resume(mirage_session *session);

MIRAGE_API int mirage_get_stats(const mirage_session *session, mirage_stats *stats);
/* A sentence that says what to do next; never NULL. */
MIRAGE_API const char *mirage_error_string(int result);

#ifdef __cplusplus
}
#endif
#endif
