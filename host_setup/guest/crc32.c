#include "crc32.h"

#include <endian.h>

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "words are taken as they lie in memory");

#define POLYNOMIAL 0xedb88320u

/* tables[k][b]: what byte b does to the checksum when k more bytes follow, so that eight bytes take eight
 * look-ups that do not wait for one another. */
static uint32_t tables[8][256];

void crc32_prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        tables[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++)
            tables[k][byte] = tables[k - 1][byte] >> 8 ^ tables[0][tables[k - 1][byte] & 255];
}

typedef const volatile uint64_t __attribute__((may_alias)) word;

static uint32_t step_byte(uint32_t crc, uint8_t byte) { return crc >> 8 ^ tables[0][(crc ^ byte) & 255]; }

static uint32_t step_word(uint32_t crc, uint64_t word)
{
    word ^= crc;
    crc = 0;
    for (int k = 7; k >= 0; k--, word >>= 8)
        crc ^= tables[k][word & 255];
    return crc;
}

uint32_t crc32_of(uint32_t crc, const volatile void *bytes, size_t n)
{
    const volatile uint8_t *next = bytes;

    crc = ~crc;
    for (; n > 0 && (uintptr_t)next % sizeof(uint64_t) != 0; n--)
        crc = step_byte(crc, *next++);
    for (; n >= sizeof(uint64_t); n -= sizeof(uint64_t), next += sizeof(uint64_t))
        crc = step_word(crc, *(word *)next);
    for (; n > 0; n--)
        crc = step_byte(crc, *next++);
    return ~crc;
}
