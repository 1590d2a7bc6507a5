/* PCI devices, used from user space through sysfs: no driver is needed for a register or a piece of memory.
 * */
#ifndef TASKLOADER_PCI_H
#define TASKLOADER_PCI_H

#include <stdbool.h>
#include <stdint.h>

struct pci_device {
    char name[64]; /* its folder's name in sysfs */
};

/* Finds and enables the first device with these numbers, written as sysfs does (`0x8086`); false with errno
 * (ENODEV: there is none). */
bool pci_find(struct pci_device *device, const char *vendor, const char *number);

/* Opens one of the device's files; -1 with errno. */
int pci_open(const struct pci_device *device, const char *file, int flags);

/* Maps the registers of BAR 0, which has at most a page; NULL with errno. */
volatile void *pci_map_registers(const struct pci_device *device);

#endif
