/* zlib's CRC-32. */
#ifndef TASKLOADER_CRC32_H
#define TASKLOADER_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Fills the tables; before anything else here. */
void crc32_prepare(void);

/* The checksum of what `crc` is the checksum of (0: of nothing), followed by `n` bytes. */
uint32_t crc32_of(uint32_t crc, const volatile void *bytes, size_t n);

#endif
