/* Control messages: packed into a fixed buffer, checked before they are unpacked. */
#ifndef MIRAGE_WIRE_H
#define MIRAGE_WIRE_H

#include <msgpack.h>

#include "protocol.h"

/* A message under way; `bytes` counts on past the end so that an overflow is known. */
typedef struct mirage_wire {
    size_t bytes;
    char data[MIRAGE_MAX_CONTROL_BYTES];
} mirage_wire;

int mirage_wire_write(void *wire, const char *data, size_t bytes);
void mirage_wire_text(msgpack_packer *packer, const char *text);
void mirage_wire_offer(msgpack_packer *packer, const mirage_offer *offer);

/* Whether `data` is one msgpack value of sane depth whose counts its bytes can hold: what may be unpacked. */
int mirage_wire_sane(const uint8_t *data, size_t bytes);

/* Fields of a map; NULL or 0 where absent or of another type. */
const msgpack_object *mirage_wire_field(const msgpack_object *map, const char *name, msgpack_object_type type);
int mirage_wire_u64(const msgpack_object *map, const char *name, uint64_t most, uint64_t *value);
/* Copies text, cut to fit and zero-terminated. */
int mirage_wire_copy(const msgpack_object *map, const char *name, char *text, size_t room);

#endif
