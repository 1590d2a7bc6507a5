#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include "pci.h"

#define VENDOR "0x8086"
#define DEVICE "0x25ab"

/* Intel's 6300ESB datasheet, chapter on the watchdog timer. Configuration space: */
#define CONFIG 0x60 /* 16 bits */
#define LOCK 0x68   /* 8 bits */
#define CONFIG_NO_INTERRUPT 0x03 /* after the first stage nobody is told; 33 MHz / 2^15; output enabled */
#define LOCK_ENABLE 0x02
/* Registers in BAR 0, by index: */
enum { TIMER1 = 0x00 / 4, TIMER2 = 0x04 / 4, RELOAD = 0x0c / 4 };
#define RELOAD_TIMERS 0x100

static bool configure(const struct pci_device *device)
{
    const uint16_t config = CONFIG_NO_INTERRUPT;
    const uint8_t lock = LOCK_ENABLE;
    int fd = pci_open(device, "config", O_RDWR);
    bool done = fd >= 0 && pwrite(fd, &config, sizeof config, CONFIG) == sizeof config &&
                pwrite(fd, &lock, sizeof lock, LOCK) == sizeof lock;

    if (fd >= 0)
        close(fd);
    return done;
}

int watchdog_open(struct watchdog *watchdog)
{
    struct pci_device device;

    *watchdog = (struct watchdog){.registers = NULL};
    if (!pci_find(&device, VENDOR, DEVICE))
        return errno == ENODEV ? 0 : errno;
    watchdog->registers = pci_map_registers(&device);
    return watchdog->registers && configure(&device) ? 0 : errno;
}

/* Each write has to be unlocked. The reload register takes 16 bits, the timers take 32. */
static void unlock(const struct watchdog *watchdog)
{
    volatile uint8_t *reload = (volatile uint8_t *)&watchdog->registers[RELOAD];

    *reload = 0x80;
    *reload = 0x86;
}

static void set_timers(const struct watchdog *watchdog, uint32_t ticks)
{
    unlock(watchdog);
    watchdog->registers[TIMER1] = ticks / 2;
    unlock(watchdog);
    watchdog->registers[TIMER2] = ticks - ticks / 2;
}

void watchdog_arm(struct watchdog *watchdog, int64_t ns)
{
    if (!watchdog || !watchdog->registers)
        return;
    uint32_t ticks = (uint32_t)((ns < WATCHDOG_MAX_NS ? ns : WATCHDOG_MAX_NS) / (32768000 / 33));
    if (ticks != watchdog->ticks)
        set_timers(watchdog, ticks < 2 ? 2 : ticks);
    watchdog->ticks = ticks;
    unlock(watchdog);
    *(volatile uint16_t *)&watchdog->registers[RELOAD] = RELOAD_TIMERS;
}
