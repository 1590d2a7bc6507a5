/* Tells the host something through QEMU's pvpanic device. */
#ifndef TASKLOADER_BELL_H
#define TASKLOADER_BELL_H

#include <stdint.h>

/* QEMU's docs/specs/pvpanic: the bits of the device's one register. */
enum bell_bits { BELL_PANICKED = 1, BELL_CRASH_LOADED = 2 };

struct bell {
    volatile uint8_t *bits;
};

/* Returns 0 or the errno; ENODEV where there is no such device. */
int bell_open(struct bell *bell);

/* With `-action panic=pause`, BELL_PANICKED returns once the host has let the guest go on. */
static inline void bell_ring(const struct bell *bell, enum bell_bits bits) { *bell->bits = (uint8_t)bits; }

/* The command: `word` is `panic` or `ready`. Returns the exit code; what went wrong is on standard error. */
int bell_command(const char *word);

#endif
