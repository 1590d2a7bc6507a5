#include "bell.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"

/* QEMU's docs/specs/pvpanic: the device's numbers, and the bits of its one register. */
#define VENDOR "0x1b36"
#define DEVICE "0x0011"
#define BIT_PANICKED 1
#define BIT_CRASH_LOADED 2

static int open_of(const char *device, const char *file, int flags)
{
    char path[512];

    snprintf(path, sizeof path, DEVICES "/%s/%s", device, file);
    return open(path, flags | O_CLOEXEC);
}

static bool holds(const char *device, const char *file, const char *wanted)
{
    char text[32] = "";
    int fd = open_of(device, file, O_RDONLY);

    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && strncmp(text, wanted, strlen(wanted)) == 0;
}

static bool find(char *name, size_t room)
{
    DIR *devices = opendir(DEVICES);
    struct dirent *entry;
    bool found = false;

    while (devices && !found && (entry = readdir(devices)) != NULL) {
        found = holds(entry->d_name, "vendor", VENDOR) && holds(entry->d_name, "device", DEVICE);
        snprintf(name, room, "%s", entry->d_name);
    }
    if (devices)
        closedir(devices);
    return found;
}

static bool ring_device(const char *device, uint8_t bits)
{
    int enable = open_of(device, "enable", O_WRONLY);
    bool enabled = enable >= 0 && write(enable, "1", 1) == 1;
    int resource = enabled ? open_of(device, "resource0", O_RDWR | O_SYNC) : -1;
    void *memory = resource < 0 ? MAP_FAILED
                                : mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE,
                                       MAP_SHARED, resource, 0);

    if (enable >= 0)
        close(enable);
    if (resource >= 0)
        close(resource);
    if (memory == MAP_FAILED)
        return false;
    *(volatile uint8_t *)memory = bits;
    munmap(memory, (size_t)sysconf(_SC_PAGESIZE));
    return true;
}

int bell(const char *word)
{
    char device[256];
    bool panic = strcmp(word, "panic") == 0;

    if (!panic && strcmp(word, "ready") != 0) {
        fprintf(stderr, "taskloader: a bell is panic or ready, not %s\n", word);
        return 2;
    }
    if (!find(device, sizeof device)) {
        fprintf(
            stderr,
            "taskloader: there is no pvpanic device on the PCI bus; start QEMU with -device pvpanic-pci\n");
        return 1;
    }
    if (!ring_device(device, panic ? BIT_PANICKED : BIT_CRASH_LOADED)) {
        fprintf(stderr, "taskloader: cannot use the pvpanic device %s: %s\n", device, strerror(errno));
        return 1;
    }
    return 0;
}
