#include "line_reader.h"

#include <string.h>
#include <unistd.h>

ssize_t line_read(struct line_reader *reader, int fd)
{
    memmove(reader->bytes, reader->bytes + reader->taken, reader->used - reader->taken);
    reader->used -= reader->taken;
    reader->taken = 0;
    ssize_t n = read(fd, reader->bytes + reader->used, sizeof reader->bytes - reader->used);
    reader->used += n > 0 ? (size_t)n : 0;
    return n;
}

enum line line_next(struct line_reader *reader, const char **line, size_t *length)
{
    for (;;) {
        const char *start = reader->bytes + reader->taken;
        size_t left = reader->used - reader->taken;
        const char *end = memchr(start, '\n', left);
        size_t here = end ? (size_t)(end - start) : left;
        if (reader->skipping) {
            reader->taken += here + (end ? 1 : 0);
            reader->skipping = !end;
            if (!end)
                return LINE_NONE;
            continue;
        }
        if (here > MAX_LINE) {
            reader->skipping = true;
            return LINE_TOO_LONG;
        }
        if (!end)
            return LINE_NONE;
        reader->taken += here + 1;
        *line = start;
        *length = here;
        return LINE_WHOLE;
    }
}
