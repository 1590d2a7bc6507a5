/* From bytes to lines of bounded length. */
#ifndef TASKLOADER_LINE_READER_H
#define TASKLOADER_LINE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "taskset.h"

struct line_reader {
    size_t used;
    size_t taken;  /* bytes of `bytes` that were handed out */
    bool skipping; /* what comes up to the next newline belongs to a line that was too long */
    char bytes[2 * (MAX_LINE + 1)];
};

enum line { LINE_NONE, LINE_WHOLE, LINE_TOO_LONG };

/* Reads once; the return value is that of `read`. To be called when `line_next` said LINE_NONE. */
ssize_t line_read(struct line_reader *reader, int fd);

/* The next whole line without its newline, valid until the next `line_read`. LINE_TOO_LONG comes once for
 * each line that is. */
enum line line_next(struct line_reader *reader, const char **line, size_t *length);

#endif
