#define _GNU_SOURCE
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "pci.h"

#define VENDOR "0x1af4"
#define DEVICE "0x1110"

int region_open(struct region *region)
{
    struct pci_device device;
    struct stat status;

    if (!pci_find(&device, VENDOR, DEVICE))
        return errno;
    /* `_wc`: as memory, not as registers. */
    region->fd = pci_open(&device, "resource2_wc", O_RDWR);
    if (region->fd < 0 || fstat(region->fd, &status) != 0)
        return errno;
    region->bytes = (uint64_t)status.st_size;
    region->memory = mmap(NULL, region->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd, 0);
    if (region->memory == MAP_FAILED || madvise(region->memory, region->bytes, MADV_DONTFORK) != 0)
        return errno;
    return 0;
}

int region_map_part(const struct region *region, uint64_t offset, uint64_t bytes)
{
    void *part = mmap(region->memory + offset, pages_up(bytes), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_FIXED_NOREPLACE, region->fd, (off_t)offset);

    return part == MAP_FAILED ? errno : 0;
}

typedef volatile uint64_t __attribute__((may_alias)) word;

void words_copy(void *to, const void *from, size_t n)
{
    word *target = to;
    const word *source = from;

    for (size_t i = 0; i < (n + sizeof *target - 1) / sizeof *target; i++)
        target[i] = source[i];
}
