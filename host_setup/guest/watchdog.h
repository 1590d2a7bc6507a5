/* The deadline that holds whatever happens in here: QEMU's i6300esb, which counts the guest's time. */
#ifndef TASKLOADER_WATCHDOG_H
#define TASKLOADER_WATCHDOG_H

#include <stdint.h>

#include "clock.h"

/* The longest that it can count; a longer wait has to be armed again meanwhile. Two stages of 20 bits, at
 * 33 MHz / 2^15. */
#define WATCHDOG_MAX_NS (2 * ((INT64_C(1) << 20) - 1) * (INT64_C(32768000) / 33))

struct watchdog {
    volatile uint32_t *registers; /* NULL: there is no such device, and nothing is watched */
    uint32_t ticks;               /* what it was armed with last */
};

/* Returns 0, also when there is no such device, or the errno. It counts from the first `watchdog_arm` on. */
int watchdog_open(struct watchdog *watchdog);

/* Unless it is armed again within `ns`, at most WATCHDOG_MAX_NS, the watchdog does what QEMU's `-action
 * watchdog` says. Without a device, or a watchdog, nothing. */
void watchdog_arm(struct watchdog *watchdog, int64_t ns);

#endif
