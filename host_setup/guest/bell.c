#include "bell.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "pci.h"

#define VENDOR "0x1b36"
#define DEVICE "0x0011"

int bell_open(struct bell *bell)
{
    struct pci_device device;

    if (!pci_find(&device, VENDOR, DEVICE) || !(bell->bits = pci_map_registers(&device)))
        return errno;
    return 0;
}

int bell_command(const char *word)
{
    struct bell bell;
    bool panic = strcmp(word, "panic") == 0;

    if (!panic && strcmp(word, "ready") != 0) {
        fprintf(stderr, "taskloader: a bell is panic or ready, not %s\n", word);
        return 2;
    }
    int error = bell_open(&bell);
    if (error == ENODEV)
        fprintf(
            stderr,
            "taskloader: there is no pvpanic device on the PCI bus; start QEMU with -device pvpanic-pci\n");
    else if (error)
        fprintf(stderr, "taskloader: cannot use the pvpanic device: %s\n", strerror(error));
    if (error)
        return 1;
    bell_ring(&bell, panic ? BELL_PANICKED : BELL_CRASH_LOADED);
    return 0;
}
