#define _GNU_SOURCE
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pci.h"

#define VENDOR "0x1af4"
#define DEVICE "0x1110"

int region_open(struct region *region)
{
    struct pci_device device;
    struct stat status;
    int error = 0;

    if (!pci_find(&device, VENDOR, DEVICE))
        return errno;
    /* `_wc`: as memory, not as registers. */
    int fd = pci_open(&device, "resource2_wc", O_RDWR);
    if (fd < 0)
        return errno;
    if (fstat(fd, &status) == 0) {
        region->bytes = (uint64_t)status.st_size;
        region->memory = mmap(NULL, region->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (region->bytes == 0 || region->memory == MAP_FAILED)
        error = errno;
    close(fd);
    return error;
}

typedef volatile uint64_t __attribute__((may_alias)) word;

void words_copy(void *to, const void *from, size_t n)
{
    word *target = to;
    const word *source = from;

    for (size_t i = 0; i < (n + sizeof *target - 1) / sizeof *target; i++)
        target[i] = source[i];
}
