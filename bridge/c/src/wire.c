#include "wire.h"

#include <string.h>

static const char *const FORMATS[] = {"RGBA8", "BGRA8", "RGB8", "RGB10A2", "RGBA16F"};
static const char *const PLANES[] = {"depth", "motion", "mask"};
static const char *const ORIENTATIONS[] = {"top_down", "bottom_up"};
static const char *const COLOR_SPACES[] = {"srgb", "linear"};
static const char *const DELIVERIES[] = {"wait", "newest", "locked"};
static const char *const DEPTHS[] = {"linear_metres", "reversed_z"};
static const char *const UNITS[] = {"pixels", "uv"};
static const char *const DIRECTIONS[] = {"to_previous", "to_current"};

enum { MOST_DEPTH = 16 };

int mirage_wire_write(void *wire, const char *data, size_t bytes) {
    mirage_wire *out = wire;
    if (bytes <= sizeof out->data && out->bytes <= sizeof out->data - bytes) {
        memcpy(out->data + out->bytes, data, bytes);
    }
    out->bytes += bytes;
    return 0;
}

void mirage_wire_text(msgpack_packer *packer, const char *text) {
    msgpack_pack_str(packer, strlen(text));
    msgpack_pack_str_body(packer, text, strlen(text));
}

void mirage_wire_offer(msgpack_packer *packer, const mirage_offer *offer) {
    uint32_t planes = 0;
    for (uint32_t bit = 0; bit < 3; bit++) planes += offer->planes >> bit & 1;
    msgpack_pack_map(packer, 11);
    mirage_wire_text(packer, "size");
    msgpack_pack_array(packer, 2);
    msgpack_pack_uint32(packer, offer->width);
    msgpack_pack_uint32(packer, offer->height);
    mirage_wire_text(packer, "pixel_format");
    mirage_wire_text(packer, FORMATS[offer->pixel_format]);
    mirage_wire_text(packer, "planes");
    msgpack_pack_array(packer, planes);
    for (uint32_t bit = 0; bit < 3; bit++) {
        if (offer->planes >> bit & 1) mirage_wire_text(packer, PLANES[bit]);
    }
    mirage_wire_text(packer, "orientation");
    mirage_wire_text(packer, ORIENTATIONS[offer->orientation]);
    mirage_wire_text(packer, "color_space");
    mirage_wire_text(packer, COLOR_SPACES[offer->color_space]);
    mirage_wire_text(packer, "depth");
    msgpack_pack_array(packer, 3);
    mirage_wire_text(packer, DEPTHS[offer->depth_kind]);
    msgpack_pack_double(packer, offer->depth_near_m);
    msgpack_pack_double(packer, offer->depth_far_m);
    mirage_wire_text(packer, "motion");
    msgpack_pack_array(packer, 3);
    mirage_wire_text(packer, UNITS[offer->motion_unit]);
    mirage_wire_text(packer, DIRECTIONS[offer->motion_direction]);
    msgpack_pack_double(packer, offer->motion_not_written);
    mirage_wire_text(packer, "row_pitch_bytes");
    msgpack_pack_uint32(packer, offer->row_pitch_bytes);
    mirage_wire_text(packer, "delivery");
    mirage_wire_text(packer, DELIVERIES[offer->delivery]);
    mirage_wire_text(packer, "budget_ns");
    msgpack_pack_uint64(packer, offer->budget_ns);
    mirage_wire_text(packer, "compression");
    mirage_wire_text(packer, "none");
}

enum { MAX_ARRAY = 8192, MAX_MAP = 1024 };

static int is_text(uint8_t head) {
    return (head >= 0xa0 && head <= 0xbf) || (head >= 0xd9 && head <= 0xdb);
}

/* Whether bytes are UTF-8 as RFC 3629 has it: no longer than need be, no surrogates, nothing beyond U+10FFFF. */
static int is_utf8(const uint8_t *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        uint8_t head = text[at++];
        if (head < 0x80) continue;
        size_t more = head >= 0xc2 && head <= 0xdf ? 1 : head >= 0xe0 && head <= 0xef ? 2 : head >= 0xf0 && head <= 0xf4 ? 3 : 0;
        if (more == 0 || bytes - at < more) return 0;
        uint8_t low = head == 0xe0 ? 0xa0 : head == 0xf0 ? 0x90 : 0x80, high = head == 0xed ? 0x9f : head == 0xf4 ? 0x8f : 0xbf;
        if (text[at] < low || text[at] > high) return 0;
        for (size_t index = 1; index < more; index++) {
            if ((text[at + index] & 0xc0) != 0x80) return 0;
        }
        at += more;
    }
    return 1;
}

/* Walks one value without allocating; returns the position after it, or 0 if it is not sane. msgpack-c itself
 * allocates what a header claims, so a claim is checked against the bytes that are there first. */
static size_t walk(const uint8_t *data, size_t bytes, size_t at, int depth) {
    if (at >= bytes || depth > MOST_DEPTH) return 0;
    uint8_t head = data[at++];
    size_t width = 0; /* bytes of the length or of the number that follows */
    uint64_t count = 0;
    int items = 0; /* values per count: 1 array, 2 map, 0 bytes */
    if (head <= 0x7f || head >= 0xe0 || head == 0xc0 || head == 0xc2 || head == 0xc3) return at;
    if (head >= 0xcc && head <= 0xd3) { /* integers */
        width = (size_t)1 << (head & 3);
        return bytes - at < width ? 0 : at + width;
    }
    if (head == 0xca || head == 0xcb) { /* floats */
        width = head == 0xca ? 4 : 8;
        return bytes - at < width ? 0 : at + width;
    }
    if (head <= 0x8f) {
        items = 2;
        count = head & 0x0f;
    } else if (head <= 0x9f) {
        items = 1;
        count = head & 0x0f;
    } else if (head <= 0xbf) {
        count = head & 0x1f;
    } else if (head >= 0xc4 && head <= 0xc6) { /* bytes */
        width = (size_t)1 << (head - 0xc4);
    } else if (head >= 0xd9 && head <= 0xdb) { /* text */
        width = (size_t)1 << (head - 0xd9);
    } else if (head == 0xdc || head == 0xdd) {
        items = 1;
        width = head == 0xdc ? 2 : 4;
    } else if (head == 0xde || head == 0xdf) {
        items = 2;
        width = head == 0xde ? 2 : 4;
    } else {
        return 0; /* extensions and the unused code */
    }
    if (bytes - at < width) return 0;
    for (size_t index = 0; index < width; index++) count = count << 8 | data[at++];
    if (items == 0) {
        if (count > bytes - at) return 0;
        return is_text(head) && !is_utf8(data + at, (size_t)count) ? 0 : at + (size_t)count;
    }
    if (count > (items == 1 ? MAX_ARRAY : MAX_MAP)) return 0;
    count *= (uint64_t)items;
    if (count > bytes - at) return 0; /* every value has a byte at least */
    for (; count > 0; count--) {
        if (items == 2 && count % 2 == 0 && (at == bytes || !is_text(data[at]))) return 0; /* a key */
        at = walk(data, bytes, at, depth + 1);
        if (at == 0) return 0;
    }
    return at;
}

int mirage_wire_sane(const uint8_t *data, size_t bytes) {
    return bytes <= MIRAGE_MAX_CONTROL_BYTES && walk(data, bytes, 0, 0) == bytes && bytes > 0;
}

const msgpack_object *mirage_wire_field(const msgpack_object *map, const char *name, msgpack_object_type type) {
    if (map->type != MSGPACK_OBJECT_MAP) return NULL;
    size_t length = strlen(name);
    for (uint32_t index = 0; index < map->via.map.size; index++) {
        const msgpack_object_kv *pair = &map->via.map.ptr[index];
        if (pair->key.type == MSGPACK_OBJECT_STR && pair->key.via.str.size == length &&
            memcmp(pair->key.via.str.ptr, name, length) == 0) {
            return pair->val.type == type ? &pair->val : NULL;
        }
    }
    return NULL;
}

int mirage_wire_u64(const msgpack_object *map, const char *name, uint64_t most, uint64_t *value) {
    const msgpack_object *field = mirage_wire_field(map, name, MSGPACK_OBJECT_POSITIVE_INTEGER);
    if (field == NULL || field->via.u64 > most) return 0;
    *value = field->via.u64;
    return 1;
}

int mirage_wire_copy(const msgpack_object *map, const char *name, char *text, size_t room) {
    const msgpack_object *field = mirage_wire_field(map, name, MSGPACK_OBJECT_STR);
    if (field == NULL) return 0;
    size_t length = field->via.str.size < room - 1 ? field->via.str.size : room - 1;
    if (length > 0) memcpy(text, field->via.str.ptr, length);
    text[length] = '\0';
    return 1;
}
