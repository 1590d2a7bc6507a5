/* Uses up an exact amount of the calling thread's CPU time. */
#ifndef TASKLOADER_SPIN_H
#define TASKLOADER_SPIN_H

#include "meter.h"

/* What this machine's instructions cost, measured once at the start. */
struct spin {
    int64_t sled_ps; /* one pass over the sled */
    int64_t step_ps; /* one turn of the two-instruction loop */
    int64_t look_ns; /* what a turn of `spin_for` takes beside what it burns, or a little more */
    int64_t own_ns;  /* what its last turn takes beside what it burns */
    int64_t bare_ns; /* what it takes itself where it never looks at a clock */
};

struct spin spin_calibrate(void);

/* Returns when the calling thread has used `ns` of CPU time since `start`, or as soon as it can tell that
 * it has used more. May be preempted anywhere, and left by a jump. Goes by the clocks, so that a processor
 * that changes its speed matters little. The return value is the instant, of CLOCK_MONOTONIC, at which it
 * is to return: when it does, nothing disturbed its last instructions, and it has used `ns`. */
int64_t spin_for(const struct spin *spin, const struct meter *start, int64_t ns);

/* A return so much off its instant was disturbed: less than an interrupt takes. */
#define SPIN_DISTURBED_NS 500

/* What interrupts take of a thread's CPU time at most, when every task of a large set is woken at once:
 * 131,072 instructions. (Measured: 2,200 for a timer tick, 10,500 with seven wake-ups.) */
static inline int64_t spin_interrupt_ns(const struct spin *spin) { return 256 * spin->sled_ps / 1000; }

/* Burns this much, more or less, without a look at any clock. */
void spin_blindly(const struct spin *spin, int64_t ns);

#endif
