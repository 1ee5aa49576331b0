/* A game's session: connection, control messages, frames and answers (PROTOCOL 5 to 8). */
#define _GNU_SOURCE
#include "mirage_bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>
#ifdef __linux__
#include <sys/random.h>
#include <sys/syscall.h>
#endif

#include "segment.h"
#include "wire.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the protocol's words are little-endian, and so must the machine be"
#endif

#define MS UINT64_C(1000000)
#define SPIN_NS (UINT64_C(100000))
#define HELLO_AGAIN_NS (1000 * MS)
#define REFUSED_AGAIN_NS (2000 * MS)
#define RESEND_NS (1000 * MS)
#define ALIVE_NS (1000 * MS)
#define SILENCE_NS (3000 * MS)
#define STALL_NS (100 * MS)
/* How long a wait sleeps before it looks whether the sidecar still moves. */
#define LOOK_UP_MS 25
#define STALE_NS (250 * MS)

enum {
    DRAIN = 64,
    ENDPOINT_BYTES = 128,
    MANY_PARTS = 64,
    MOST_IPC_PATH = 107,
    REASON_BYTES = 64,
    SENTENCE_BYTES = 512,
    SPARE_DESCRIPTORS = 10, /* a context and a socket take six */
};

/* Numbered messages (5.2). What one says is decided when it is sent, so one of each kind in line is enough. */
enum { M_ATTACH, M_ATTACH_FAILED, M_STYLE, M_CHANGE, M_PAUSING, M_KINDS };

/* Private memory for frames without a sidecar: two sets in turn, one drawn while the other is shown. */
typedef struct private_set {
    int references;
    uint8_t *pixels[2];
    mirage_layout layout;
} private_set;

/* Where the pixels of the game's own last frame stand, and what keeps them there. */
typedef struct source {
    const uint8_t *pixels;
    mirage_ring *ring;
    private_set *set;
    uint32_t width, height, row_pitch_bytes;
} source;

struct mirage_session {
    char endpoint[ENDPOINT_BYTES];
    void *context, *socket;
    pid_t process;
    int pidfd;
    /* what the game wants */
    mirage_offer offer;
    char *style; /* packed */
    size_t style_bytes;
    float strength;
    uint64_t seed;
    uint32_t style_epoch, hold_frames;
    int paused;
    /* the handshake */
    int in_session, hello_sent, hello_kept, refused, was_ready;
    uint64_t session_id, known_session, next_hello_ns, next_alive_ns, pinged_ns;
    mirage_offer hello_offer;
    uint32_t hello_epoch;
    char refusal[SENTENCE_BYTES], style_refusal[SENTENCE_BYTES], problem[SENTENCE_BYTES];
    /* numbered messages */
    struct {
        int kind;
        uint64_t number;
    } line[2 * M_KINDS];
    int line_length;
    uint64_t number, line_sent_ns, head_number, change_again_ns;
    mirage_offer line_offer;
    uint32_t line_epoch;
    /* frames */
    mirage_ring *ring;
    private_set *own;
    uint64_t frame_id, frame_serial, deadline_ns;
    uint64_t cut_id; /* of the newest frame that had nothing to do with the one before */
    int drawing; /* 0 none, 1 in a slot, 2 private */
    int drawing_slot;
    mirage_ring *drawing_ring;
    private_set *drawing_set;
    source last;
    int last_sent;
    /* answers */
    int latest; /* index into ring->held, or -1 */
    uint64_t seen_progress, unmoved_since_ns;
    int moved; /* since the newest frame was put before the host */
    mirage_stats stats;
    mirage_wire out, head;
    uint8_t in[MIRAGE_MAX_CONTROL_BYTES];
};

static uint64_t now_ns(void) {
    struct timespec at = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * UINT64_C(1000000000) + (uint64_t)at.tv_nsec;
}

static int random_bytes(uint8_t *bytes, size_t count) {
#ifdef __linux__
    return getrandom(bytes, count, 0) == (ssize_t)count;
#else
    arc4random_buf(bytes, count);
    return 1;
#endif
}

/* -- private memory ---------------------------------------------------------------------------------- */

static void set_drop(private_set *set) {
    if (set == NULL || --set->references > 0) return;
    free(set->pixels[0]);
    free(set->pixels[1]);
    free(set);
}

static private_set *set_new(const mirage_offer *offer) {
    private_set *set = calloc(1, sizeof *set);
    if (set == NULL || !mirage_layout_of(offer, &set->layout)) {
        free(set);
        return NULL;
    }
    set->references = 1;
    for (int index = 0; index < 2; index++) {
        set->pixels[index] = calloc(1, (size_t)set->layout.frame_slot_bytes);
        if (set->pixels[index] == NULL) {
            set_drop(set);
            return NULL;
        }
    }
    return set;
}

static void source_drop(source *last) {
    mirage_ring_drop(last->ring);
    set_drop(last->set);
    memset(last, 0, sizeof *last);
}

/* -- addresses (8) ----------------------------------------------------------------------------------- */

static int find_endpoint(const char *given, char *endpoint) {
    const char *configured = given != NULL ? given : getenv("MIRAGE_ENDPOINT");
    int written;
    if (configured != NULL && configured[0] != '\0') {
        written = snprintf(endpoint, ENDPOINT_BYTES, "%s", configured);
    } else if (getenv("XDG_RUNTIME_DIR") != NULL && getenv("XDG_RUNTIME_DIR")[0] != '\0') {
        written = snprintf(endpoint, ENDPOINT_BYTES, "ipc://%s/mirage/bridge", getenv("XDG_RUNTIME_DIR"));
    } else {
        const char *temporary = getenv("TMPDIR");
        written = snprintf(endpoint, ENDPOINT_BYTES, "ipc://%s/mirage-%ld/bridge",
                           temporary != NULL && temporary[0] != '\0' ? temporary : "/tmp", (long)getuid());
    }
    return written > 0 && written < ENDPOINT_BYTES && strncmp(endpoint, "ipc:///", 7) == 0 &&
           strlen(endpoint + 6) <= MOST_IPC_PATH;
}

/* A directory that is there must be this user's alone; one that is not is nobody's trap. */
static int directory_is_private(const char *endpoint) {
    char path[ENDPOINT_BYTES];
    struct stat status;
    snprintf(path, sizeof path, "%s", endpoint + 6);
    char *slash = strrchr(path, '/');
    if (slash == path) slash++;
    *slash = '\0';
    if (lstat(path, &status) != 0) return 1;
    return S_ISDIR(status.st_mode) && status.st_uid == getuid() && (status.st_mode & 077) == 0;
}

/* -- the connection ---------------------------------------------------------------------------------- */

/* Whether the process has descriptors left for a socket: libzmq aborts it where it runs out of them. */
static int descriptors_left(void) {
    int fds[SPARE_DESCRIPTORS], count = 0;
    while (count < SPARE_DESCRIPTORS && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) count++;
    const int left = count == SPARE_DESCRIPTORS, why = errno;
    while (count > 0) close(fds[--count]);
    errno = why;
    return left;
}

static int open_socket(mirage_session *s) {
    uint8_t identity[MIRAGE_IDENTITY_BYTES] = {1};
    if (!descriptors_left()) return MIRAGE_E_SOCKET;
    if (!directory_is_private(s->endpoint)) return MIRAGE_E_ENDPOINT;
    if (!random_bytes(identity + 1, sizeof identity - 1)) return MIRAGE_E_CLOCK;
    void *socket = zmq_socket(s->context, ZMQ_DEALER);
    if (socket == NULL) return MIRAGE_E_SOCKET;
    const struct {
        int option, value;
    } settings[] = {
        {ZMQ_LINGER, 0},           {ZMQ_SNDHWM, 64},          {ZMQ_RCVHWM, 64},
        {ZMQ_HEARTBEAT_IVL, 500},  {ZMQ_HEARTBEAT_TIMEOUT, 3000}, {ZMQ_HEARTBEAT_TTL, 3000},
        {ZMQ_HANDSHAKE_IVL, 5000}, {ZMQ_RECONNECT_IVL, 20},   {ZMQ_RECONNECT_IVL_MAX, 200},
        {ZMQ_IMMEDIATE, 1},
    };
    int failed = 0;
    for (size_t index = 0; index < sizeof settings / sizeof *settings; index++) {
        failed |= zmq_setsockopt(socket, settings[index].option, &settings[index].value, sizeof(int));
    }
    int64_t most = MIRAGE_MAX_CONTROL_BYTES;
    failed |= zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most);
    failed |= zmq_setsockopt(socket, ZMQ_ROUTING_ID, identity, sizeof identity);
    if (failed || zmq_connect(socket, s->endpoint) != 0) {
        zmq_close(socket);
        return MIRAGE_E_SOCKET;
    }
    s->socket = socket;
    return MIRAGE_OK;
}

/* The session's own references to the ring go; frames and answers the game still holds keep theirs. */
static void leave_ring(mirage_session *s) {
    mirage_ring *ring = s->ring;
    if (ring == NULL) return;
    s->stats.faults += ring->faults;
    if (s->latest >= 0 && --ring->held[s->latest].holders == 0) mirage_ring_release(ring, s->latest);
    s->latest = -1;
    s->ring = NULL;
    mirage_ring_drop(ring);
}

static void drop_link(mirage_session *s, int linger_ms) {
    leave_ring(s);
    if (s->pidfd >= 0) close(s->pidfd);
    s->pidfd = -1;
    if (s->socket != NULL) {
        zmq_setsockopt(s->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(s->socket);
    }
    s->socket = NULL;
    s->in_session = s->hello_sent = s->hello_kept = 0;
    s->next_hello_ns = s->next_alive_ns = s->pinged_ns = 0;
    s->line_length = 0;
    s->number = s->head_number = s->change_again_ns = 0;
    s->seen_progress = s->unmoved_since_ns = s->deadline_ns = 0;
    s->moved = 1;
}

static void lost(mirage_session *s) {
    drop_link(s, 0);
    open_socket(s); /* if that fails, the next call tries again */
}

static int send_parts(mirage_session *s, const char *tag, const void *body, size_t bytes) {
    if (s->socket == NULL || zmq_send(s->socket, tag, 1, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) return 0;
    return zmq_send(s->socket, body, bytes, ZMQ_DONTWAIT) >= 0;
}

static int send_wire(mirage_session *s) {
    return s->out.bytes <= sizeof s->out.data && send_parts(s, "C", s->out.data, s->out.bytes);
}

static msgpack_packer begin_message(mirage_session *s, uint32_t fields, const char *type) {
    msgpack_packer packer;
    s->out.bytes = 0;
    msgpack_packer_init(&packer, &s->out, mirage_wire_write);
    msgpack_pack_map(&packer, fields);
    mirage_wire_text(&packer, "type");
    mirage_wire_text(&packer, type);
    return packer;
}

static void pack_style(mirage_session *s, msgpack_packer *packer) {
    mirage_wire_text(packer, "style");
    mirage_wire_write(&s->out, s->style, s->style_bytes);
    mirage_wire_text(packer, "strength");
    msgpack_pack_double(packer, (double)s->strength);
    mirage_wire_text(packer, "seed");
    msgpack_pack_uint64(packer, s->seed);
    mirage_wire_text(packer, "style_epoch");
    msgpack_pack_uint32(packer, s->style_epoch);
}

/* The host may have the first one, and its welcome answers that: said again, the words are the same, and what the game
 * has changed since is asked for behind the welcome. Until then no message has a number, and `head` keeps the words. */
static void say_hello(mirage_session *s, uint64_t now) {
    if (s->hello_kept) {
        s->hello_sent = send_parts(s, "C", s->head.data, s->head.bytes);
        if (s->hello_sent) s->next_hello_ns = now + HELLO_AGAIN_NS;
        return;
    }
    msgpack_packer packer = begin_message(s, 9, "hello");
    mirage_wire_text(&packer, "protocol");
    msgpack_pack_array(&packer, 2);
    msgpack_pack_int(&packer, MIRAGE_MAJOR);
    msgpack_pack_int(&packer, MIRAGE_MINOR);
    mirage_wire_text(&packer, "pid");
    msgpack_pack_int64(&packer, getpid());
    mirage_wire_text(&packer, "transport");
    mirage_wire_text(&packer, "shm");
    mirage_wire_text(&packer, "offer");
    mirage_wire_offer(&packer, &s->offer);
    pack_style(s, &packer);
    s->hello_sent = send_wire(s);
    if (s->hello_sent) {
        s->hello_kept = 1;
        s->head.bytes = s->out.bytes;
        memcpy(s->head.data, s->out.data, s->out.bytes);
        s->hello_offer = s->offer;
        s->hello_epoch = s->style_epoch;
        s->next_hello_ns = now + HELLO_AGAIN_NS;
    }
}

static void send_head(mirage_session *s, uint64_t now) {
    static const char *const types[] = {"attach", "attach_failed", "style", "change", NULL};
    if (s->line_length == 0) return;
    if (s->head_number == s->line[0].number) {
        /* Asked again, the same words: the host does a number once, and answers it as it was. */
        if (send_parts(s, "C", s->head.data, s->head.bytes)) s->line_sent_ns = now;
        return;
    }
    int kind = s->line[0].kind;
    uint32_t fields = kind == M_STYLE ? 6 : kind == M_CHANGE || kind == M_ATTACH_FAILED ? 3 : 2;
    const char *type = kind == M_PAUSING ? (s->paused ? "pause" : "resume") : types[kind];
    msgpack_packer packer = begin_message(s, fields, type);
    mirage_wire_text(&packer, "number");
    msgpack_pack_uint64(&packer, s->line[0].number);
    if (kind == M_STYLE) {
        s->line_epoch = s->style_epoch;
        pack_style(s, &packer);
    } else if (kind == M_CHANGE) {
        s->line_offer = s->offer;
        mirage_wire_text(&packer, "offer");
        mirage_wire_offer(&packer, &s->offer);
    } else if (kind == M_ATTACH_FAILED) {
        mirage_wire_text(&packer, "sentence");
        mirage_wire_text(&packer, s->problem);
    }
    if (!send_wire(s)) return;
    s->line_sent_ns = now;
    s->head_number = s->line[0].number;
    s->head.bytes = s->out.bytes;
    memcpy(s->head.data, s->out.data, s->out.bytes);
}

static void queue(mirage_session *s, int kind) {
    for (int index = 1; index < s->line_length; index++) {
        if (s->line[index].kind == kind) return; /* it will carry the newest values */
    }
    s->line[s->line_length].kind = kind;
    s->line[s->line_length].number = ++s->number;
    if (++s->line_length == 1) send_head(s, now_ns());
}

static void attach(mirage_session *s, const msgpack_object *message, const mirage_offer *offer) {
    const msgpack_object *map = mirage_wire_field(message, "segment", MSGPACK_OBJECT_MAP);
    mirage_address address;
    char memory[8] = "";
    memset(&address, 0, sizeof address);
    const msgpack_object *token = map != NULL ? mirage_wire_field(map, "token", MSGPACK_OBJECT_BIN) : NULL;
    int sound = token != NULL && token->via.bin.size == sizeof address.token &&
                mirage_wire_u64(map, "generation", UINT32_MAX, &address.generation) &&
                mirage_wire_u64(map, "total_bytes", UINT64_MAX, &address.total_bytes) &&
                mirage_wire_copy(map, "memory", memory, sizeof memory);
    if (sound) {
        memcpy(address.token, token->via.bin.ptr, sizeof address.token);
        address.is_file = strcmp(memory, "file") == 0;
        sound = address.is_file ? mirage_wire_copy(map, "path", address.path, sizeof address.path)
                                : mirage_wire_u64(map, "pid", INT32_MAX, &address.pid) &&
                                      mirage_wire_u64(map, "fd", INT32_MAX, &address.fd);
    }
    if (!sound) {
        s->stats.faults++;
        return;
    }
    mirage_ring *ring = mirage_ring_attach(offer, &address, s->problem, sizeof s->problem);
    if (ring == NULL) {
        queue(s, M_ATTACH_FAILED);
        return;
    }
    leave_ring(s);
    s->ring = ring;
    s->seen_progress = mirage_ring_peer_progress(ring);
    s->moved = 1;
#if defined(__linux__) && defined(SYS_pidfd_open)
    /* The descriptor led to the right memory, so the number is the right process. */
    if (s->pidfd < 0 && !address.is_file) s->pidfd = (int)syscall(SYS_pidfd_open, (pid_t)address.pid, 0);
#endif
    if (s->was_ready && s->session_id != s->known_session) s->stats.reconnects++;
    s->was_ready = 1;
    s->known_session = s->session_id;
    queue(s, M_ATTACH);
}

static void welcomed(mirage_session *s, const msgpack_object *message) {
    const msgpack_object *version = mirage_wire_field(message, "protocol", MSGPACK_OBJECT_ARRAY);
    uint64_t session_id = 0;
    if (s->in_session) return;
    if (version == NULL || version->via.array.size < 1 ||
        version->via.array.ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
        version->via.array.ptr[0].via.u64 != MIRAGE_MAJOR ||
        !mirage_wire_u64(message, "session", UINT64_MAX, &session_id)) {
        s->stats.faults++;
        return;
    }
    s->in_session = 1;
    s->refused = 0;
    s->session_id = session_id;
    s->line_offer = s->hello_offer;
    attach(s, message, &s->hello_offer);
    if (s->paused) queue(s, M_PAUSING);
    if (!mirage_offer_equal(&s->offer, &s->hello_offer)) queue(s, M_CHANGE);
    if (s->style_epoch != s->hello_epoch) queue(s, M_STYLE);
}

static void acknowledged(mirage_session *s, const msgpack_object *message, int agreed, uint64_t now) {
    uint64_t number = 0;
    if (!mirage_wire_u64(message, "number", UINT64_MAX, &number)) {
        s->stats.faults++;
        return;
    }
    if (s->line_length == 0 || s->line[0].number != number) return;
    int kind = s->line[0].kind;
    memmove(s->line, s->line + 1, sizeof s->line[0] * (size_t)--s->line_length);
    if (kind == M_STYLE && !agreed && s->line_epoch == s->style_epoch) {
        mirage_wire_copy(message, "sentence", s->style_refusal, sizeof s->style_refusal);
    } else if (kind == M_CHANGE || kind == M_ATTACH_FAILED) {
        if (agreed) {
            s->refused = 0;
            attach(s, message, &s->line_offer);
        } else if (kind == M_ATTACH_FAILED || mirage_offer_equal(&s->line_offer, &s->offer)) {
            s->refused = mirage_wire_copy(message, "sentence", s->refusal, sizeof s->refusal);
            /* A change is asked for again, as a new game would: other games may have left by then. */
            if (kind == M_CHANGE) s->change_again_ns = now + REFUSED_AGAIN_NS;
        }
    }
    send_head(s, now);
}

static void receive(mirage_session *s, size_t bytes, uint64_t now) {
    msgpack_unpacked unpacked;
    size_t offset = 0;
    char type[16] = "";
    if (!mirage_wire_sane(s->in, bytes)) {
        s->stats.faults++;
        return;
    }
    msgpack_unpacked_init(&unpacked);
    if (msgpack_unpack_next(&unpacked, (const char *)s->in, bytes, &offset) == MSGPACK_UNPACK_SUCCESS &&
        mirage_wire_copy(&unpacked.data, "type", type, sizeof type)) {
        const msgpack_object *message = &unpacked.data;
        if (strcmp(type, "welcome") == 0) {
            welcomed(s, message);
        } else if (strcmp(type, "refused") == 0) {
            s->refused = mirage_wire_copy(message, "sentence", s->refusal, sizeof s->refusal);
            s->hello_kept = 0;
            s->next_hello_ns = now + REFUSED_AGAIN_NS;
        } else if (strcmp(type, "ok") == 0 || strcmp(type, "error") == 0) {
            acknowledged(s, message, type[0] == 'o', now);
        } else if (strcmp(type, "gone") == 0 || strcmp(type, "bye") == 0) {
            if (s->in_session) lost(s);
        } else if (strcmp(type, "alive") != 0) {
            s->stats.faults++;
        }
    } else {
        s->stats.faults++;
    }
    msgpack_unpacked_destroy(&unpacked);
}

/* One message: -1 if none waits, else the bytes of its body in s->in if it is a control message, else 0. */
static int read_message(mirage_session *s) {
    uint8_t tag[2] = {0, 0};
    int tag_bytes = zmq_recv(s->socket, tag, sizeof tag, ZMQ_DONTWAIT);
    if (tag_bytes < 0) return -1;
    int more = 0, parts = 1, body = 0;
    size_t room = sizeof more;
    while (zmq_getsockopt(s->socket, ZMQ_RCVMORE, &more, &room) == 0 && more) {
        int got = zmq_recv(s->socket, s->in, sizeof s->in, ZMQ_DONTWAIT);
        if (got < 0) break;
        if (++parts == 2) body = got;
        if (parts > MANY_PARTS) { /* a message without an end: what is left of it goes with the connection */
            s->stats.faults++;
            lost(s);
            return -1;
        }
    }
    if (parts == 2 && tag_bytes == 1 && tag[0] == 'C' && body <= (int)sizeof s->in) return body;
    /* A doorbell woke us; what it announces stands in shared memory. */
    if (parts != 2 || tag_bytes != 1 || tag[0] != 'D') s->stats.faults++;
    return 0;
}

/* Everything that is due, without waiting for any of it. */
static void pump(mirage_session *s) {
    uint64_t now = now_ns();
    if (s->pidfd >= 0) {
        struct pollfd death = {s->pidfd, POLLIN, 0};
        if (poll(&death, 1, 0) > 0) lost(s);
    }
    if (s->socket == NULL && open_socket(s) != MIRAGE_OK) return;
    for (int count = 0; count < DRAIN && s->socket != NULL; count++) {
        int bytes = read_message(s);
        if (bytes < 0) break;
        s->pinged_ns = 0;
        if (bytes > 0) receive(s, (size_t)bytes, now);
    }
    if (!s->in_session) {
        if (now >= s->next_hello_ns) say_hello(s, now);
        return;
    }
    if (s->line_length > 0 && now - s->line_sent_ns > RESEND_NS) send_head(s, now);
    if (s->change_again_ns != 0 && now >= s->change_again_ns) {
        s->change_again_ns = 0;
        if (s->refused) queue(s, M_CHANGE);
    }
    if (s->pinged_ns != 0 && s->pidfd < 0 && now - s->pinged_ns > SILENCE_NS) {
        lost(s);
    } else if (now >= s->next_alive_ns) {
        s->next_alive_ns = now + ALIVE_NS;
        if (s->pinged_ns == 0) s->pinged_ns = now;
        begin_message(s, 1, "alive");
        send_wire(s);
    }
}

/* -- making and ending a session --------------------------------------------------------------------- */

void mirage_options_init(mirage_options *options) {
    if (options == NULL) return;
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->width = 640;
    options->height = 360;
    options->motion_not_written = NAN;
    options->strength = 1.0f;
    options->budget_ns = UINT64_C(16670000);
    options->style = "snow";
}

void mirage_frame_init(mirage_frame *frame) {
    if (frame == NULL) return;
    memset(frame, 0, sizeof *frame);
    frame->size = sizeof *frame;
}

void mirage_answer_init(mirage_answer *answer) {
    if (answer == NULL) return;
    memset(answer, 0, sizeof *answer);
    answer->size = sizeof *answer;
}

void mirage_stats_init(mirage_stats *stats) {
    if (stats == NULL) return;
    memset(stats, 0, sizeof *stats);
    stats->size = sizeof *stats;
}

static int strength_ok(float strength) {
    return strength >= 0.0f && strength <= 1.0f; /* NaN is not */
}

static int options_ok(const mirage_options *o) {
    return o->orientation <= 1 && o->color_space <= 1 && o->delivery <= 2 && o->depth_kind <= 1 &&
           o->motion_unit <= 1 && o->motion_direction <= 1 && strength_ok(o->strength) && o->style != NULL &&
           o->budget_ns > 0 && o->budget_ns <= UINT64_C(60000000000) && o->seed <= INT64_MAX &&
           (o->depth_kind == MIRAGE_DEPTH_LINEAR_METRES ||
            (o->depth_near_m > 0 && o->depth_near_m < o->depth_far_m));
}

static int set_style(mirage_session *s, const char *packed, size_t bytes) {
    if (bytes > MIRAGE_MAX_STYLE_BYTES) return MIRAGE_E_TOO_LARGE;
    char *copy = malloc(bytes);
    if (copy == NULL) return MIRAGE_E_MEMORY;
    memcpy(copy, packed, bytes);
    free(s->style);
    s->style = copy;
    s->style_bytes = bytes;
    return MIRAGE_OK;
}

static int set_style_name(mirage_session *s, const char *name) {
    msgpack_packer packer;
    if (strlen(name) > MIRAGE_MAX_STYLE_BYTES - 8) return MIRAGE_E_TOO_LARGE;
    s->out.bytes = 0;
    msgpack_packer_init(&packer, &s->out, mirage_wire_write);
    mirage_wire_text(&packer, name);
    if (!mirage_wire_sane((const uint8_t *)s->out.data, s->out.bytes)) return MIRAGE_E_ARGUMENT;
    return set_style(s, s->out.data, s->out.bytes);
}

int mirage_connect(const mirage_options *options, mirage_session **session) {
    if (session == NULL) return MIRAGE_E_ARGUMENT;
    *session = NULL;
    if (options == NULL || options->size != sizeof *options || !options_ok(options)) return MIRAGE_E_ARGUMENT;
    mirage_session *s = calloc(1, sizeof *s);
    if (s == NULL) return MIRAGE_E_MEMORY;
    s->process = getpid();
    s->pidfd = s->latest = -1;
    s->offer = (mirage_offer){
        .width = options->width,
        .height = options->height,
        .pixel_format = options->pixel_format,
        .planes = options->planes,
        .orientation = options->orientation,
        .color_space = options->color_space,
        .delivery = options->delivery,
        .row_pitch_bytes = options->row_pitch_bytes,
        .depth_kind = options->depth_kind,
        .motion_unit = options->motion_unit,
        .motion_direction = options->motion_direction,
        .depth_near_m = options->depth_near_m,
        .depth_far_m = options->depth_far_m,
        .motion_not_written = (double)options->motion_not_written,
        .budget_ns = options->budget_ns,
    };
    s->strength = options->strength;
    s->seed = options->seed;
    s->hold_frames = options->hold_frames;
    s->style_epoch = 1;
    mirage_stats_init(&s->stats);
    mirage_layout layout;
    int result = MIRAGE_OK;
    if (!mirage_layout_of(&s->offer, &layout)) {
        result = MIRAGE_E_ARGUMENT;
    } else if (!find_endpoint(options->endpoint, s->endpoint)) {
        result = MIRAGE_E_ENDPOINT;
    } else if ((s->own = set_new(&s->offer)) == NULL) {
        result = MIRAGE_E_MEMORY;
    } else if ((result = set_style_name(s, options->style)) == MIRAGE_OK) {
        s->context = zmq_ctx_new();
        result = s->context == NULL ? MIRAGE_E_SOCKET : open_socket(s);
    }
    if (result != MIRAGE_OK) {
        mirage_disconnect(&s);
        return result;
    }
    pump(s);
    *session = s;
    return MIRAGE_OK;
}

static void give_up_drawing(mirage_session *s) {
    if (s->drawing == 1) {
        mirage_ring_cancel(s->drawing_ring, s->drawing_slot);
        mirage_ring_drop(s->drawing_ring);
    }
    set_drop(s->drawing_set);
    s->drawing = 0;
    s->drawing_ring = NULL;
    s->drawing_set = NULL;
}

void mirage_disconnect(mirage_session **session) {
    if (session == NULL || *session == NULL) return;
    mirage_session *s = *session;
    *session = NULL;
    if (getpid() != s->process) return; /* a forked child: slots, pins and connection are its parent's */
    give_up_drawing(s);
    source_drop(&s->last);
    if (s->in_session) {
        begin_message(s, 1, "bye");
        send_wire(s);
    }
    drop_link(s, 200);
    while (s->context != NULL && zmq_ctx_term(s->context) != 0 && errno == EINTR) continue;
    set_drop(s->own);
    free(s->style);
    free(s);
}

int mirage_state(const mirage_session *session) {
    if (session == NULL) return MIRAGE_E_ARGUMENT;
    if (session->refused) return MIRAGE_REFUSED;
    if (session->in_session) return session->ring != NULL ? MIRAGE_READY : MIRAGE_CONNECTING;
    return session->hello_sent ? MIRAGE_CONNECTING : MIRAGE_OFFLINE;
}

const char *mirage_refusal(const mirage_session *session) {
    if (session == NULL) return "";
    return session->refused ? session->refusal : session->style_refusal;
}

int mirage_wait_ready(mirage_session *session, uint64_t timeout_ns) {
    if (session == NULL) return MIRAGE_E_ARGUMENT;
    uint64_t start = now_ns();
    for (;;) {
        pump(session);
        int state = mirage_state(session);
        if (state == MIRAGE_READY) return MIRAGE_OK;
        uint64_t spent = now_ns() - start;
        if (state == MIRAGE_REFUSED || spent >= timeout_ns) return MIRAGE_NOT_YET;
        uint64_t left_ms = (timeout_ns - spent) / MS + 1;
        zmq_pollitem_t item = {session->socket, 0, ZMQ_POLLIN, 0};
        zmq_poll(&item, session->socket != NULL, left_ms < 10 ? (long)left_ms : 10);
    }
}

/* -- frames ------------------------------------------------------------------------------------------ */

static void lay_out(mirage_frame *frame, uint8_t *base, const mirage_layout *layout) {
    frame->row_pitch_bytes = layout->row_pitch_bytes;
    frame->pixels = base;
    /* Planes begin on pages, so the casts keep alignment. */
    frame->depth = layout->depth_offset ? (float *)(void *)(base + layout->depth_offset) : NULL;
    frame->motion = layout->motion_offset ? (uint16_t *)(void *)(base + layout->motion_offset) : NULL;
    frame->mask = layout->mask_offset ? base + layout->mask_offset : NULL;
}

int mirage_begin_frame(mirage_session *session, mirage_frame *frame) {
    if (session == NULL || frame == NULL || frame->size != sizeof *frame) return MIRAGE_E_ARGUMENT;
    mirage_session *s = session;
    pump(s);
    give_up_drawing(s);
    frame->width = s->offer.width;
    frame->height = s->offer.height;
    frame->camera_cut = 0;
    frame->input_ns = frame->captured_ns = 0;
    frame->serial = ++s->frame_serial;
    if (s->ring != NULL && !s->paused && mirage_offer_equal(&s->ring->offer, &s->offer)) {
        int slot = mirage_ring_begin(s->ring);
        if (slot >= 0) {
            s->drawing = 1;
            s->drawing_slot = slot;
            s->drawing_ring = s->ring;
            s->ring->references++;
            frame->in_shared_memory = 1;
            lay_out(frame, mirage_ring_frame(s->ring, slot), &s->ring->layout);
            return MIRAGE_OK;
        }
    }
    s->drawing = 2;
    s->drawing_set = s->own; /* a resize meanwhile is for the next frame */
    s->own->references++;
    frame->in_shared_memory = 0;
    lay_out(frame, s->own->pixels[s->last.pixels == s->own->pixels[0] ? 1 : 0], &s->own->layout);
    return MIRAGE_OK;
}

int mirage_end_frame(mirage_session *session, mirage_frame *frame, uint64_t *frame_id) {
    if (session == NULL || frame == NULL || frame->size != sizeof *frame) return MIRAGE_E_ARGUMENT;
    mirage_session *s = session;
    if (s->drawing == 0 || frame->serial != s->frame_serial) return MIRAGE_E_FRAME;
    uint64_t now = now_ns();
    source_drop(&s->last);
    s->last = (source){frame->pixels, NULL, NULL, frame->width, frame->height, frame->row_pitch_bytes};
    s->frame_id++;
    if (frame->camera_cut) s->cut_id = s->frame_id;
    if (frame_id != NULL) *frame_id = s->frame_id;
    s->deadline_ns = now + s->offer.budget_ns;
    s->last_sent = s->drawing == 1 && s->drawing_ring == s->ring;
    if (s->drawing == 1) {
        s->last.ring = s->drawing_ring; /* the reference moves along */
    } else {
        s->last.set = s->drawing_set;
        s->drawing_set = NULL;
    }
    if (s->last_sent) {
        mirage_frame_record record;
        memset(&record, 0, sizeof record);
        memcpy(record.magic, "MFR1", 4);
        record.major = MIRAGE_MAJOR;
        record.slot = (uint16_t)s->drawing_slot;
        record.generation = s->ring->generation;
        record.flags = frame->camera_cut != 0;
        record.sequence = s->ring->sequence + 1;
        record.frame_id = s->frame_id;
        record.input_ns = frame->input_ns;
        record.captured_ns = frame->captured_ns != 0 ? frame->captured_ns : now;
        record.published_ns = now;
        record.budget_ns = s->offer.budget_ns;
        record.seed = s->seed;
        record.style_epoch = s->style_epoch;
        record.strength = s->strength;
        mirage_ring_publish(s->ring, s->drawing_slot, &record);
        if (s->moved) s->unmoved_since_ns = now;
        s->moved = 0;
        s->stats.frames++;
        /* The slot is the truth: a doorbell that finds no room leaves others before it to wake the host. */
        if (mirage_ring_peer_asleep(s->ring)) send_parts(s, "D", &record, sizeof record);
    } else {
        s->stats.frames_offline++;
    }
    s->drawing = 0;
    s->drawing_ring = NULL;
    frame->pixels = NULL;
    frame->depth = NULL;
    frame->motion = NULL;
    frame->mask = NULL;
    pump(s);
    return MIRAGE_OK;
}

/* -- answers ----------------------------------------------------------------------------------------- */

/* Pins the newest answer if it is new; 0 if the game holds both pins. */
static int take_newest(mirage_session *s) {
    mirage_ring *ring = s->ring;
    if (ring == NULL) return 1;
    uint64_t progress = mirage_ring_peer_progress(ring);
    if (progress != s->seen_progress) {
        /* From here anew: what it still did for the frame before must not hide that it hangs on this one. */
        s->seen_progress = progress;
        s->unmoved_since_ns = now_ns();
        s->moved = 1;
    }
    if (!mirage_ring_waiting(ring)) return 1;
    if (ring->held[0].pinned && ring->held[1].pinned) {
        if (s->latest < 0 || ring->held[s->latest].holders > 1) return 0;
        /* Nothing is lost by letting the shown one go: a newer stands ready. */
        ring->held[s->latest].holders = 0;
        mirage_ring_release(ring, s->latest);
        s->latest = -1;
    }
    int index = mirage_ring_take(ring);
    if (index < 0) return 1;
    if (s->latest >= 0 && --ring->held[s->latest].holders == 0) mirage_ring_release(ring, s->latest);
    s->latest = index;
    ring->held[index].holders = 1;
    uint32_t kind = ring->held[index].record.kind;
    if (kind == MIRAGE_STYLED) s->stats.styled++;
    if (kind == MIRAGE_REPROJECTED) s->stats.reprojected++;
    if (kind == MIRAGE_SOURCE) s->stats.source++;
    s->stats.dropped += ring->held[index].record.skipped;
    return 1;
}

static const char *why_no_wait(const mirage_session *s, uint64_t now) {
    if (s->ring == NULL) {
        int state = mirage_state(s);
        return state == MIRAGE_REFUSED      ? "refused by the sidecar"
               : state == MIRAGE_CONNECTING ? "connecting to the sidecar"
                                            : "no sidecar";
    }
    if (s->paused) return "paused";
    if (!s->last_sent) return "the frame was not sent";
    if (now > s->unmoved_since_ns + STALL_NS) return "the sidecar does not move";
    return NULL;
}

static void own_frame(mirage_session *s, const char *reason, mirage_answer *answer) {
    mirage_answer_init(answer);
    answer->kind = MIRAGE_SOURCE;
    answer->pixels = s->last.pixels;
    answer->width = s->last.width;
    answer->height = s->last.height;
    answer->row_pitch_bytes = s->last.row_pitch_bytes;
    if (s->last.pixels == NULL) { /* nothing was drawn yet: black */
        answer->pixels = s->own->pixels[0];
        answer->width = s->offer.width;
        answer->height = s->offer.height;
        answer->row_pitch_bytes = s->own->layout.row_pitch_bytes;
    }
    answer->working_width = answer->width;
    answer->working_height = answer->height;
    answer->frame_id = s->frame_id;
    answer->style_epoch = s->style_epoch;
    answer->published_ns = now_ns();
    snprintf(answer->reason, sizeof answer->reason, "%s", reason);
}

static void give(mirage_session *s, mirage_answer *answer) {
    mirage_ring *ring = s->ring;
    const mirage_answer_record *record = &ring->held[s->latest].record;
    char reason[REASON_BYTES];
    memcpy(reason, record->reason, record->reason_bytes);
    reason[record->reason_bytes] = '\0';
    own_frame(s, reason, answer);
    answer->answered = 1;
    answer->kind = record->kind;
    answer->style_epoch = record->style_epoch;
    answer->service_ns = record->service_ns;
    answer->published_ns = record->published_ns;
    if (record->flags & 1) return; /* no pixels: show your own */
    answer->frame_id = record->frame_id;
    answer->edit_age_frames = record->edit_age_frames;
    answer->working_width = record->working_width;
    answer->working_height = record->working_height;
    answer->width = ring->offer.width;
    answer->height = ring->offer.height;
    answer->row_pitch_bytes = ring->layout.row_pitch_bytes;
    answer->pixels = mirage_ring_answer(ring, ring->held[s->latest].slot);
    answer->held = ring;
    answer->serial = ring->held[s->latest].serial << 1 | (uint64_t)s->latest;
    ring->held[s->latest].holders++;
    ring->references++;
}

/* Whether the newest answer's picture is such as the game draws now. */
static int fits(const mirage_session *s) {
    return s->latest >= 0 && mirage_offer_equal(&s->ring->offer, &s->offer);
}

/* The last answer, not as one to this frame; 0 where it may not be shown again. */
static int give_again(mirage_session *s, uint64_t wanted, mirage_answer *answer) {
    if (!fits(s)) return 0;
    const mirage_answer_record *record = &s->ring->held[s->latest].record;
    if (record->flags & 1 || wanted - record->frame_id > s->hold_frames || record->frame_id < s->cut_id ||
        record->style_epoch != s->style_epoch)
        return 0;
    give(s, answer);
    answer->answered = 0;
    snprintf(answer->reason, sizeof answer->reason, "no answer within the budget");
    return 1;
}

int mirage_poll_answer(mirage_session *session, mirage_answer *answer) {
    if (session == NULL || answer == NULL || answer->size != sizeof *answer) return MIRAGE_E_ARGUMENT;
    mirage_session *s = session;
    if (answer->held != NULL) mirage_release(s, answer);
    pump(s);
    if (!take_newest(s)) return MIRAGE_E_HELD;
    uint64_t now = now_ns();
    const char *reason = why_no_wait(s, now);
    if (!fits(s)) {
        own_frame(s, reason != NULL ? reason : "no answer yet", answer);
    } else if (now - s->ring->held[s->latest].record.frame_published_ns > STALE_NS) {
        own_frame(s, reason != NULL ? reason : "the newest answer is stale", answer);
    } else {
        give(s, answer);
    }
    return MIRAGE_OK;
}

int mirage_wait_answer(mirage_session *session, uint64_t frame_id, uint64_t timeout_ns, mirage_answer *answer) {
    if (session == NULL || answer == NULL || answer->size != sizeof *answer) return MIRAGE_E_ARGUMENT;
    mirage_session *s = session;
    if (s->offer.delivery == MIRAGE_DELIVERY_NEWEST) return mirage_poll_answer(s, answer);
    if (answer->held != NULL) mirage_release(s, answer);
    uint64_t wanted = s->offer.delivery == MIRAGE_DELIVERY_LOCKED && frame_id > 0 ? frame_id - 1 : frame_id;
    uint64_t start = now_ns();
    uint64_t end = s->deadline_ns;
    if (timeout_ns < UINT64_MAX - start && start + timeout_ns < end) end = start + timeout_ns;
    const char *reason = why_no_wait(s, start);
    for (;;) {
        if (!take_newest(s)) return MIRAGE_E_HELD;
        if (fits(s) && s->ring->held[s->latest].record.frame_id >= wanted) {
            give(s, answer);
            return MIRAGE_OK;
        }
        if (reason != NULL) {
            own_frame(s, reason, answer);
            return MIRAGE_OK;
        }
        uint64_t now = now_ns();
        if (now >= end) {
            s->stats.late++;
            if (!give_again(s, wanted, answer)) own_frame(s, "no answer within the budget", answer);
            return MIRAGE_OK;
        }
        if (now - start < SPIN_NS) continue;
        if (end - now < 2 * MS) {
            /* A poll counts whole milliseconds: the last stretch is slept in small steps. */
            struct timespec nap = {0, end - now < 50000 ? (long)(end - now) : 50000};
            nanosleep(&nap, NULL);
        } else {
            zmq_pollitem_t items[2] = {{s->socket, 0, ZMQ_POLLIN, 0}, {NULL, s->pidfd, ZMQ_POLLIN, 0}};
            long wait_ms = (long)((end - now) / MS) - 1;
            mirage_ring_set_asleep(s->ring, 1);
            if (!mirage_ring_waiting(s->ring)) {
                zmq_poll(items, s->pidfd >= 0 ? 2 : 1, wait_ms < LOOK_UP_MS ? wait_ms : LOOK_UP_MS);
            }
            mirage_ring_set_asleep(s->ring, 0);
        }
        pump(s);
        reason = why_no_wait(s, now);
    }
}

int mirage_release(mirage_session *session, mirage_answer *answer) {
    (void)session; /* its memory outlives it */
    if (answer == NULL || answer->size != sizeof *answer) return MIRAGE_E_ARGUMENT;
    mirage_ring *ring = answer->held;
    answer->pixels = NULL;
    answer->held = NULL;
    if (ring == NULL) return MIRAGE_OK;
    int index = (int)(answer->serial & 1);
    if (ring->held[index].pinned && ring->held[index].serial == answer->serial >> 1 &&
        --ring->held[index].holders == 0) {
        mirage_ring_release(ring, index);
    }
    mirage_ring_drop(ring);
    return MIRAGE_OK;
}

/* -- changes ----------------------------------------------------------------------------------------- */

static void restyled(mirage_session *s, uint32_t *epoch) {
    s->style_epoch++;
    s->style_refusal[0] = '\0';
    if (epoch != NULL) *epoch = s->style_epoch;
    if (s->in_session) {
        queue(s, M_STYLE);
    } else {
        s->next_hello_ns = 0;
    }
}

int mirage_set_style(mirage_session *session, const char *name, uint32_t *epoch) {
    if (session == NULL || name == NULL) return MIRAGE_E_ARGUMENT;
    int result = set_style_name(session, name);
    if (result == MIRAGE_OK) restyled(session, epoch);
    return result;
}

int mirage_set_style_msgpack(mirage_session *session, const void *data, size_t size_bytes, uint32_t *epoch) {
    if (session == NULL || data == NULL) return MIRAGE_E_ARGUMENT;
    if (size_bytes > MIRAGE_MAX_STYLE_BYTES) return MIRAGE_E_TOO_LARGE;
    if (!mirage_wire_sane(data, size_bytes)) return MIRAGE_E_ARGUMENT;
    int result = set_style(session, data, size_bytes);
    if (result == MIRAGE_OK) restyled(session, epoch);
    return result;
}

int mirage_set_strength(mirage_session *session, float strength) {
    if (session == NULL || !strength_ok(strength)) return MIRAGE_E_ARGUMENT;
    session->strength = strength;
    return MIRAGE_OK;
}

int mirage_resize(mirage_session *session, uint32_t width, uint32_t height) {
    if (session == NULL) return MIRAGE_E_ARGUMENT;
    mirage_session *s = session;
    mirage_offer offer = s->offer;
    mirage_layout layout;
    offer.width = width;
    offer.height = height;
    offer.row_pitch_bytes = 0;
    if (!mirage_layout_of(&offer, &layout)) return MIRAGE_E_ARGUMENT;
    if (mirage_offer_equal(&offer, &s->offer)) return MIRAGE_OK;
    private_set *own = set_new(&offer);
    if (own == NULL) return MIRAGE_E_MEMORY;
    if (s->last.pixels == NULL && s->last.set == NULL) {
        s->last.set = s->own; /* nothing was drawn yet, and the black answer may still be on the screen */
    } else {
        set_drop(s->own);
    }
    s->own = own;
    s->offer = offer;
    if (s->in_session) {
        s->refused = 0;
        queue(s, M_CHANGE);
    } else {
        s->next_hello_ns = 0;
    }
    return MIRAGE_OK;
}

static int pausing(mirage_session *s, int paused) {
    if (s == NULL) return MIRAGE_E_ARGUMENT;
    if (s->paused != paused) {
        s->paused = paused;
        if (s->in_session) queue(s, M_PAUSING);
    }
    return MIRAGE_OK;
}

int mirage_pause(mirage_session *session) {
    return pausing(session, 1);
}

int mirage_resume(mirage_session *session) {
    return pausing(session, 0);
}

int mirage_get_stats(const mirage_session *session, mirage_stats *stats) {
    if (session == NULL || stats == NULL || stats->size != sizeof *stats) return MIRAGE_E_ARGUMENT;
    *stats = session->stats;
    if (session->ring != NULL) stats->faults += session->ring->faults;
    return MIRAGE_OK;
}

const char *mirage_error_string(int result) {
    switch (result) {
        case MIRAGE_OK: return "no error";
        case MIRAGE_NOT_YET: return "no sidecar was ready in time; see mirage_refusal, or start one with: mirage serve";
        case MIRAGE_E_ARGUMENT: return "an argument is null or out of range, or a struct was not initialised";
        case MIRAGE_E_ENDPOINT: return "the endpoint must be ipc:///absolute/path in a directory of this user alone (chmod 700)";
        case MIRAGE_E_MEMORY: return "the process has no memory left; ask for a smaller size";
        case MIRAGE_E_FRAME: return "this frame was ended or given up; begin another";
        case MIRAGE_E_HELD: return "two answers are held; release one first";
        case MIRAGE_E_TOO_LARGE: return "the style is over 61440 bytes";
        case MIRAGE_E_SOCKET: return "ZeroMQ could not make a socket; see errno, and the limit of open files";
        case MIRAGE_E_CLOCK: return "the system's random source failed; see errno";
        default: return "not a result of this library";
    }
}
