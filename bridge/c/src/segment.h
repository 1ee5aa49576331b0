/* Mapping the host's memory (PROTOCOL 4.4) and its game's side: lanes of frames and answers (PROTOCOL 7). */
#ifndef MIRAGE_SEGMENT_H
#define MIRAGE_SEGMENT_H

#include "protocol.h"

/* Where a host says its memory is. */
typedef struct mirage_address {
    uint64_t generation, total_bytes, pid, fd;
    uint8_t token[16];
    int is_file;
    char path[128];
} mirage_address;

/* A mapped segment with the game's private knowledge of it. Freed with its last reference, so that memory never
 * goes away under a frame or an answer. */
typedef struct mirage_ring {
    int references;
    uint8_t *memory;
    mirage_offer offer;
    mirage_layout layout;
    uint32_t generation;
    mirage_line *own, *peer;
    mirage_slot *frame_slots, *answer_slots;
    /* writing frames */
    uint64_t sequence;
    int newest, writing;
    /* reading answers */
    uint64_t taken;
    struct {
        int pinned, slot, holders;
        uint64_t serial;
        mirage_answer_record record;
    } held[MIRAGE_PINS];
    uint64_t faults;
} mirage_ring;

/* NULL with a sentence in `problem` if the memory is not what was announced. */
mirage_ring *mirage_ring_attach(const mirage_offer *offer, const mirage_address *address, char *problem,
                                size_t room);
void mirage_ring_drop(mirage_ring *ring);

int mirage_ring_begin(mirage_ring *ring);                                        /* slot, or -1 */
void mirage_ring_cancel(mirage_ring *ring, int slot);
void mirage_ring_publish(mirage_ring *ring, int slot, const mirage_frame_record *record);
void mirage_ring_advance(mirage_ring *ring);
uint64_t mirage_ring_peer_progress(const mirage_ring *ring);
/* Whether the host needs a doorbell for what was published last; ask for doorbells, then look a last time. */
int mirage_ring_peer_asleep(const mirage_ring *ring);
void mirage_ring_set_asleep(mirage_ring *ring, int asleep);
int mirage_ring_waiting(const mirage_ring *ring);
/* Pins the newest answer if it is new and sound: index into `held`, or -1. */
int mirage_ring_take(mirage_ring *ring);
void mirage_ring_release(mirage_ring *ring, int index);

uint8_t *mirage_ring_frame(const mirage_ring *ring, int slot);
const uint8_t *mirage_ring_answer(const mirage_ring *ring, int slot);

#endif
