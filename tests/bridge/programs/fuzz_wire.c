/* Reads messages (four bytes of length, then as many bytes) and unpacks each as the library does. */
#include <stdio.h>
#include <stdlib.h>

#include "wire.h"

int main(void) {
    uint32_t length;
    static char text[64];
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        /* Memory of exactly the message's size, so that a read past its end is seen. */
        uint8_t *data = malloc(length > 0 ? length : 1);
        if (data == NULL || fread(data, 1, length, stdin) != length) return 1;
        int sane = mirage_wire_sane(data, length);
        int fields = 0;
        if (sane) {
            msgpack_unpacked unpacked;
            size_t offset = 0;
            msgpack_unpacked_init(&unpacked);
            if (msgpack_unpack_next(&unpacked, (const char *)data, length, &offset) == MSGPACK_UNPACK_SUCCESS) {
                uint64_t number = 0;
                fields = 1 + mirage_wire_copy(&unpacked.data, "type", text, sizeof text) +
                         mirage_wire_u64(&unpacked.data, "number", UINT64_MAX, &number);
            }
            msgpack_unpacked_destroy(&unpacked);
        }
        free(data);
        printf("%d%d\n", sane, fields);
    }
    return 0;
}
