#include "out.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

bool out_has_room(const struct out *out) { return sizeof out->bytes - out->used >= OUT_ROOM; }

bool out_is_pending(const struct out *out) { return out->used > out->sent; }

void out_bytes(struct out *out, const char *bytes, size_t n)
{
    if (n > sizeof out->bytes - out->used) {
        out->broken = true; /* a defect of ours: better to end than to send half a line */
        return;
    }
    memcpy(out->bytes + out->used, bytes, n);
    out->used += n;
}

void out_text(struct out *out, const char *text) { out_bytes(out, text, strlen(text)); }

void out_number(struct out *out, int64_t number)
{
    char digits[24];
    char *first = digits + sizeof digits;
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;

    do
        *--first = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0)
        *--first = '-';
    out_bytes(out, first, (size_t)(digits + sizeof digits - first));
}

void out_known(struct out *out, int64_t number)
{
    out_bytes(out, " ", 1);
    if (number < 0)
        out_bytes(out, "-", 1);
    else
        out_number(out, number);
}

void out_encoded(struct out *out, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-+:=";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        char escaped[3] = {'%', digits[c >> 4], digits[c & 15]};
        if (strchr(plain, c))
            out_bytes(out, text, 1);
        else
            out_bytes(out, escaped, 3);
    }
}

void out_write_some(struct out *out)
{
    struct pollfd poller = {.fd = out->fd, .events = POLLOUT};

    if (out->fd < 0)
        return;
    /* A pipe that is ready for output takes PIPE_BUF bytes at once. */
    while (out_is_pending(out) && !out->broken && poll(&poller, 1, 0) == 1) {
        size_t left = out->used - out->sent;
        ssize_t n = write(out->fd, out->bytes + out->sent, left < PIPE_BUF ? left : PIPE_BUF);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            out->broken = true;
        if (n <= 0)
            break;
        out->sent += (size_t)n;
    }
    memmove(out->bytes, out->bytes + out->sent, out->used - out->sent);
    out->used -= out->sent;
    out->sent = 0;
}

void out_write_all(struct out *out, int patience_ms)
{
    struct pollfd poller = {.fd = out->fd, .events = POLLOUT};

    while (out_is_pending(out) && !out->broken && poll(&poller, 1, patience_ms) == 1)
        out_write_some(out);
}
