/* Uses up an exact amount of the calling thread's CPU time. */
#ifndef TASKLOADER_SPIN_H
#define TASKLOADER_SPIN_H

#include <stdint.h>

/* What this machine's instructions cost, measured once at the start. */
struct spin {
    int64_t sled_ps; /* one pass over the sled */
    int64_t step_ps; /* one turn of the two-instruction loop */
    int64_t read_ns; /* from one sample of the thread's CPU clock to the next, read back to back */
};

struct spin spin_calibrate(void);

/* Returns so that the caller's next reading of its CPU clock shows `until_ns`, or later by the time of a few
 * instructions. May be preempted anywhere. Re-reads the clock as it goes, so that a processor that changes
 * its speed matters little. */
void spin_until(const struct spin *spin, int64_t until_ns);

#endif
