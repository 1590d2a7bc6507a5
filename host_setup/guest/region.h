/* The memory that host and guest share: BAR 2 of QEMU's ivshmem-plain. */
#ifndef TASKLOADER_REGION_H
#define TASKLOADER_REGION_H

#include <stddef.h>
#include <stdint.h>

#define REGION_PAGE 4096

struct region {
    uint64_t bytes;
    char *memory;
};

/* Returns 0 or the errno; ENODEV where there is no such device. */
int region_open(struct region *region);

/* Copies whole words: the one access that every kind of device memory takes. Addresses are multiples of 8,
 * `n` is rounded up. */
void words_copy(void *to, const void *from, size_t n);

static inline uint64_t pages_up(uint64_t bytes)
{
    return (bytes + REGION_PAGE - 1) / REGION_PAGE * REGION_PAGE;
}

#endif
