/* Pieces of a line of text, and what they may spell. Pure. */
#ifndef TASKLOADER_SLICE_H
#define TASKLOADER_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Not ended by a NUL; `bytes` is NULL where nothing is left. */
struct slice {
    const char *bytes;
    size_t length;
};

bool slice_is(struct slice slice, const char *text);

/* Splits off everything before the first `separator`; false, with an empty part, when nothing is left. */
bool slice_next(struct slice *rest, char separator, struct slice *part);

/* Decimal digits only. A number beyond 64 bits becomes INT64_MAX, which no range of the protocol holds. */
bool slice_to_number(struct slice text, int64_t *number);

/* 1-16 hexadecimal digits, not all zero; `-` gives 0. */
bool slice_to_mask(struct slice text, uint64_t *mask);

/* Undoes percent-encoding into `to`, NUL-ended, and returns the bytes used; -1 when malformed, longer than
 * `room`, or holding a NUL. */
int slice_decode(struct slice text, char *to, size_t room);

#endif
