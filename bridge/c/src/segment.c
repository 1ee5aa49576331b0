#define _GNU_SOURCE
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHASES = 8 };

static const uint32_t PIXEL_BYTES[] = {4, 4, 3, 4, 8};
static const uint32_t ITEM_BYTES[] = {1, 1, 1, 4, 2};

static uint64_t page_up(uint64_t bytes) {
    return (bytes + MIRAGE_PAGE - 1) / MIRAGE_PAGE * MIRAGE_PAGE;
}

int mirage_layout_of(const mirage_offer *offer, mirage_layout *layout) {
    if (offer->width < 1 || offer->width > MIRAGE_MAX_SIDE_PIXELS || offer->height < 1 ||
        offer->height > MIRAGE_MAX_SIDE_PIXELS || offer->pixel_format > 4 || offer->planes > 7) {
        return 0;
    }
    uint32_t tight = offer->width * PIXEL_BYTES[offer->pixel_format];
    uint32_t pitch = offer->row_pitch_bytes ? offer->row_pitch_bytes : tight;
    if (pitch < tight || pitch > 2 * tight + MIRAGE_PAGE || pitch % ITEM_BYTES[offer->pixel_format]) return 0;
    uint64_t area = (uint64_t)offer->width * offer->height;
    memset(layout, 0, sizeof *layout);
    layout->row_pitch_bytes = pitch;
    layout->pixels_bytes = (uint64_t)pitch * offer->height;
    uint64_t end = page_up(layout->pixels_bytes);
    layout->answer_slot_bytes = end;
    if (offer->planes & 1) {
        layout->depth_offset = end;
        end = page_up(end + area * 4);
    }
    if (offer->planes & 2) {
        layout->motion_offset = end;
        end = page_up(end + area * 4);
    }
    if (offer->planes & 4) {
        layout->mask_offset = end;
        end = page_up(end + area);
    }
    layout->frame_slot_bytes = end;
    layout->frames_offset =
        MIRAGE_SLOTS_OFFSET + page_up((MIRAGE_FRAME_SLOTS + MIRAGE_ANSWER_SLOTS) * MIRAGE_SLOT_HEADER_BYTES);
    layout->answers_offset = layout->frames_offset + MIRAGE_FRAME_SLOTS * end;
    layout->total_bytes = layout->answers_offset + MIRAGE_ANSWER_SLOTS * layout->answer_slot_bytes;
    return 1;
}

int mirage_offer_equal(const mirage_offer *a, const mirage_offer *b) {
    /* Two NaNs are the same "not written". */
    int same_not_written = a->motion_not_written == b->motion_not_written ||
                           (a->motion_not_written != a->motion_not_written &&
                            b->motion_not_written != b->motion_not_written);
    return a->width == b->width && a->height == b->height && a->pixel_format == b->pixel_format &&
           a->planes == b->planes && a->orientation == b->orientation && a->color_space == b->color_space &&
           a->delivery == b->delivery && a->row_pitch_bytes == b->row_pitch_bytes &&
           a->depth_kind == b->depth_kind && a->motion_unit == b->motion_unit &&
           a->motion_direction == b->motion_direction && a->depth_near_m == b->depth_near_m &&
           a->depth_far_m == b->depth_far_m && same_not_written && a->budget_ns == b->budget_ns;
}

/* 4.4 step 2: looked at before it is opened, for in another PID namespace it is a stranger's descriptor. */
static int open_memfd(const mirage_address *address, char *problem, size_t room) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%llu/fd/%llu", (unsigned long long)address->pid,
             (unsigned long long)address->fd);
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode)) {
        snprintf(problem, room, "%s is not memory that can be reached", path);
        return -1;
    }
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) snprintf(problem, room, "%s cannot be opened: %s", path, strerror(errno));
    return fd;
}

/* 4.4 step 4 */
static int open_file(const mirage_address *address, char *problem, size_t room) {
    static const char prefix[] = "/dev/shm/mirage-";
    const char *name = address->path;
    size_t digits = 0;
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        digits = strspn(name + sizeof prefix - 1, "0123456789abcdef");
    }
    if (digits != 32 || strlen(name) != sizeof prefix - 1 + 32) {
        snprintf(problem, room, "the announced file is not a segment's name on this machine");
        return -1;
    }
    /* A lease that somebody holds on the file would be waited for. */
    int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;
    if (fd >= 0 && (fstat(fd, &status) != 0 || (status.st_mode & 07777) != 0600)) {
        close(fd);
        fd = -1;
        errno = EPERM;
    }
    if (fd < 0) {
        snprintf(problem, room, "%s cannot be opened: %s", name, strerror(errno));
        return -1;
    }
    unlink(name);
    return fd;
}

mirage_ring *mirage_ring_attach(const mirage_offer *offer, const mirage_address *address, char *problem,
                                size_t room) {
    mirage_layout layout;
    if (!mirage_layout_of(offer, &layout) || address->total_bytes != layout.total_bytes) {
        snprintf(problem, room, "the host announced another size than the layout has");
        return NULL;
    }
    int fd = address->is_file ? open_file(address, problem, room) : open_memfd(address, problem, room);
    if (fd < 0) return NULL;
    struct stat status;
    int sound = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == getuid() &&
                (uint64_t)status.st_size == layout.total_bytes;
#ifdef F_GET_SEALS
    if (sound && !address->is_file) {
        int seals = fcntl(fd, F_GET_SEALS);
        sound = seals >= 0 && (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW);
    }
#endif
    void *memory = MAP_FAILED;
    if (sound) memory = mmap(NULL, (size_t)layout.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) {
        snprintf(problem, room, "the announced memory is not the host's sealed segment, or cannot be mapped");
        return NULL;
    }
    mirage_segment_header expected = {
        .magic = {'M', 'I', 'R', 'A', 'G', 'E', 'S', 'M'},
        .major = MIRAGE_MAJOR,
        .minor = MIRAGE_MINOR,
        .header_bytes = sizeof expected,
        .generation = (uint32_t)address->generation,
        .frame_slots = MIRAGE_FRAME_SLOTS,
        .answer_slots = MIRAGE_ANSWER_SLOTS,
        .total_bytes = layout.total_bytes,
        .width = offer->width,
        .height = offer->height,
        .pixel_format = (uint16_t)offer->pixel_format,
        .planes = (uint16_t)offer->planes,
        .row_pitch_bytes = layout.row_pitch_bytes,
    };
    memcpy(expected.token, address->token, sizeof expected.token);
    mirage_ring *ring = NULL;
    if (memcmp(memory, &expected, sizeof expected) != 0) {
        snprintf(problem, room, "the announced memory does not carry the host's header and token");
    } else if ((ring = calloc(1, sizeof *ring)) == NULL) {
        snprintf(problem, room, "the game has no memory left");
    }
    if (ring == NULL) {
        munmap(memory, (size_t)layout.total_bytes);
        return NULL;
    }
    ring->references = 1;
    ring->memory = memory;
    ring->offer = *offer;
    ring->layout = layout;
    ring->generation = (uint32_t)address->generation;
    ring->own = (mirage_line *)(void *)(ring->memory + MIRAGE_GAME_LINE);
    ring->peer = (mirage_line *)(void *)(ring->memory + MIRAGE_HOST_LINE);
    ring->frame_slots = (mirage_slot *)(void *)(ring->memory + MIRAGE_SLOTS_OFFSET);
    ring->answer_slots = ring->frame_slots + MIRAGE_FRAME_SLOTS;
    ring->newest = ring->writing = -1;
    return ring;
}

void mirage_ring_drop(mirage_ring *ring) {
    if (ring == NULL || --ring->references > 0) return;
    munmap(ring->memory, (size_t)ring->layout.total_bytes);
    free(ring);
}

/* Words are relaxed atomics; what orders them are the fences of PROTOCOL 7. */
static uint64_t load(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(_Atomic uint64_t *word, uint64_t value) {
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static void fence(void) {
    atomic_thread_fence(memory_order_seq_cst);
}

int mirage_ring_begin(mirage_ring *ring) {
    fence(); /* W1 */
    int pin0 = (int)(load(&ring->peer->pin0) & 0xff) - 1;
    int pin1 = (int)(load(&ring->peer->pin1) & 0xff) - 1;
    for (int step = 1; step <= MIRAGE_FRAME_SLOTS; step++) { /* W2 */
        int slot = (ring->newest + step) % MIRAGE_FRAME_SLOTS;
        if (slot == ring->newest || slot == pin0 || slot == pin1 || slot == ring->writing) continue;
        store(&ring->frame_slots[slot].state, ring->sequence << 8 | MIRAGE_STATE_WRITING);
        fence(); /* W3 */
        ring->writing = slot;
        return slot;
    }
    return -1;
}

void mirage_ring_cancel(mirage_ring *ring, int slot) {
    ring->writing = -1;
    store(&ring->frame_slots[slot].state, MIRAGE_STATE_FREE);
}

void mirage_ring_publish(mirage_ring *ring, int slot, const mirage_frame_record *record) {
    ring->sequence++;
    memcpy(ring->frame_slots[slot].record, record, sizeof *record);                          /* W4 */
    store(&ring->frame_slots[slot].state, ring->sequence << 8 | MIRAGE_STATE_READY);
    fence();                                                                                 /* W5 */
    ring->writing = -1;
    ring->newest = slot;
    store(&ring->own->newest, ring->sequence << 8 | (uint64_t)slot);                         /* W6 */
    mirage_ring_advance(ring);
    fence(); /* W6: announced before anybody looks whether the reader sleeps */
}

int mirage_ring_peer_asleep(const mirage_ring *ring) {
    return load(&ring->peer->asleep) != 0;
}

void mirage_ring_set_asleep(mirage_ring *ring, int asleep) {
    store(&ring->own->asleep, (uint64_t)asleep);
    fence(); /* out before a last look at what the peer published */
}

void mirage_ring_advance(mirage_ring *ring) {
    store(&ring->own->progress, load(&ring->own->progress) + 1);
}

uint64_t mirage_ring_peer_progress(const mirage_ring *ring) {
    return load(&ring->peer->progress);
}

int mirage_ring_waiting(const mirage_ring *ring) {
    uint64_t word = load(&ring->peer->newest);
    return word >> 8 > ring->taken && (word & 0xff) < MIRAGE_ANSWER_SLOTS;
}

static _Atomic uint64_t *pin_word(mirage_ring *ring, int index) {
    return index == 0 ? &ring->own->pin0 : &ring->own->pin1;
}

/* Section 6: copied out after pinning, then checked. */
static int sound_answer(const mirage_ring *ring, const mirage_answer_record *record, int slot) {
    return memcmp(record->magic, "MAN1", 4) == 0 && record->major == MIRAGE_MAJOR && record->slot == slot &&
           record->generation == ring->generation && record->kind <= 2 && (record->flags & ~1u) == 0 &&
           record->reason_bytes <= sizeof record->reason;
}

int mirage_ring_take(mirage_ring *ring) {
    int index = ring->held[0].pinned ? 1 : 0;
    if (ring->held[index].pinned) return -1;
    _Atomic uint64_t *pin = pin_word(ring, index);
    for (int chase = 0; chase < CHASES; chase++) {
        uint64_t word = load(&ring->peer->newest); /* R1 */
        uint64_t sequence = word >> 8;
        int slot = (int)(word & 0xff);
        if (sequence <= ring->taken) break;
        if (slot >= MIRAGE_ANSWER_SLOTS) {
            ring->faults++;
            break;
        }
        store(pin, sequence << 8 | (uint64_t)(slot + 1)); /* R2 */
        fence();                                          /* R3 */
        if (load(&ring->peer->newest) != word) continue;  /* R4 */
        if (load(&ring->answer_slots[slot].state) != (sequence << 8 | MIRAGE_STATE_READY)) { /* R5 */
            ring->faults++; /* only a peer that breaks the protocol gets here, and is not looked at again for this */
            ring->taken = sequence;
            break;
        }
        memcpy(&ring->held[index].record, ring->answer_slots[slot].record, sizeof ring->held[index].record);
        ring->taken = sequence;
        if (!sound_answer(ring, &ring->held[index].record, slot)) {
            ring->faults++;
            break;
        }
        ring->held[index].record.sequence = sequence;
        ring->held[index].pinned = 1;
        ring->held[index].slot = slot;
        ring->held[index].holders = 0;
        ring->held[index].serial++;
        return index;
    }
    store(pin, 0);
    return -1;
}

void mirage_ring_release(mirage_ring *ring, int index) {
    int slot = ring->held[index].slot;
    uint64_t sequence = ring->held[index].record.sequence;
    if (load(&ring->answer_slots[slot].state) != (sequence << 8 | MIRAGE_STATE_READY)) ring->faults++; /* R6 */
    fence();                                                                                         /* R7 */
    store(pin_word(ring, index), 0);
    ring->held[index].pinned = 0;
}

uint8_t *mirage_ring_frame(const mirage_ring *ring, int slot) {
    return ring->memory + ring->layout.frames_offset + (uint64_t)slot * ring->layout.frame_slot_bytes;
}

const uint8_t *mirage_ring_answer(const mirage_ring *ring, int slot) {
    return ring->memory + ring->layout.answers_offset + (uint64_t)slot * ring->layout.answer_slot_bytes;
}
