#include "slice.h"

#include <string.h>

bool slice_is(struct slice slice, const char *text)
{
    return slice.length == strlen(text) && memcmp(slice.bytes, text, slice.length) == 0;
}

bool slice_next(struct slice *rest, char separator, struct slice *part)
{
    *part = (struct slice){NULL, 0};
    if (rest->bytes == NULL)
        return false;
    const char *end = memchr(rest->bytes, separator, rest->length);
    part->bytes = rest->bytes;
    part->length = end ? (size_t)(end - rest->bytes) : rest->length;
    rest->length -= part->length + (end ? 1 : 0);
    rest->bytes = end ? end + 1 : NULL;
    return true;
}

bool slice_to_number(struct slice text, int64_t *number)
{
    int64_t value = 0;

    if (text.length == 0)
        return false;
    for (size_t i = 0; i < text.length; i++) {
        int digit = text.bytes[i] - '0';
        if (digit < 0 || digit > 9)
            return false;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value))
            value = INT64_MAX; /* out of every range, and stays there */
    }
    *number = value;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool slice_to_mask(struct slice text, uint64_t *mask)
{
    *mask = 0;
    if (slice_is(text, "-"))
        return true;
    if (text.length == 0 || text.length > 16)
        return false;
    for (size_t i = 0; i < text.length; i++) {
        int digit = hex_digit(text.bytes[i]);
        if (digit < 0)
            return false;
        *mask = *mask << 4 | (unsigned)digit;
    }
    return *mask != 0;
}

int slice_decode(struct slice text, char *to, size_t room)
{
    size_t used = 0;

    for (size_t i = 0; i < text.length; i++) {
        char c = text.bytes[i];
        if (c == '%') {
            if (i + 2 >= text.length || hex_digit(text.bytes[i + 1]) < 0 || hex_digit(text.bytes[i + 2]) < 0)
                return -1;
            c = (char)(hex_digit(text.bytes[i + 1]) << 4 | hex_digit(text.bytes[i + 2]));
            i += 2;
        }
        if (c == '\0' || used + 1 >= room)
            return -1;
        to[used++] = c;
    }
    to[used++] = '\0';
    return (int)used;
}
