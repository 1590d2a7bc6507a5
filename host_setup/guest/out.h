/* Lines on their way out: built in memory, written whenever the reader takes them, so that a slow reader
 * blocks nothing. */
#ifndef TASKLOADER_OUT_H
#define TASKLOADER_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUT_CAPACITY (64 << 10)
#define OUT_ROOM (16 << 10) /* enough for whatever answers one request */

struct out {
    int fd;      /* -1: whoever owns it takes the bytes from here */
    bool broken; /* nobody will ever read it again */
    size_t sent; /* bytes of `bytes` that were written */
    size_t used;
    char bytes[OUT_CAPACITY];
};

/* Whether OUT_ROOM is left. Whoever adds lines asks first. */
bool out_has_room(const struct out *out);

/* Whether something waits to be written. */
bool out_is_pending(const struct out *out);

void out_bytes(struct out *out, const char *bytes, size_t n);
void out_text(struct out *out, const char *text);
void out_number(struct out *out, int64_t number);
void out_known(struct out *out, int64_t number);     /* a space, then the number; `-` for a negative one */
void out_encoded(struct out *out, const char *text); /* percent-encoded */

/* Writes what can be written without blocking. */
void out_write_some(struct out *out);

/* Writes everything, unless the reader takes nothing for as long as this. */
void out_write_all(struct out *out, int patience_ms);

#endif
