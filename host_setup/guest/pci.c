#define _GNU_SOURCE
#include "pci.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"

int pci_open(const struct pci_device *device, const char *file, int flags)
{
    char path[128];

    snprintf(path, sizeof path, DEVICES "/%s/%s", device->name, file);
    return open(path, flags | O_CLOEXEC);
}

/* The beginning of a small file, as text. */
static bool read_text(const struct pci_device *device, const char *file, char *text, size_t room)
{
    int fd = pci_open(device, file, O_RDONLY);

    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, room - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return n > 0;
}

static bool holds(const struct pci_device *device, const char *file, const char *wanted)
{
    char text[32];

    return read_text(device, file, text, sizeof text) && strncmp(text, wanted, strlen(wanted)) == 0;
}

static bool enable(const struct pci_device *device)
{
    int fd = pci_open(device, "enable", O_WRONLY);
    bool enabled = fd >= 0 && write(fd, "1", 1) == 1;

    if (fd >= 0)
        close(fd);
    return enabled;
}

bool pci_find(struct pci_device *device, const char *vendor, const char *number)
{
    DIR *devices = opendir(DEVICES);
    struct dirent *entry;
    bool found = false;

    while (devices && !found && (entry = readdir(devices)) != NULL) {
        snprintf(device->name, sizeof device->name, "%.63s", entry->d_name);
        found = holds(device, "vendor", vendor) && holds(device, "device", number);
    }
    if (devices)
        closedir(devices);
    if (!found)
        errno = ENODEV;
    return found && enable(device);
}

volatile void *pci_map_registers(const struct pci_device *device)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char text[32]; /* the first line of `resource` begins with the address of BAR 0 */
    int fd = -1;
    char *memory = MAP_FAILED;

    if (read_text(device, "resource", text, sizeof text))
        fd = pci_open(device, "resource0", O_RDWR | O_SYNC);
    if (fd >= 0) {
        memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    if (memory == MAP_FAILED)
        return NULL;
    /* Whole pages are mapped; several devices may share one. */
    return memory + strtoull(text, NULL, 16) % page;
}
