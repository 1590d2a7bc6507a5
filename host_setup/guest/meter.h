/* A job's CPU time, without what it takes to measure it. */
#ifndef TASKLOADER_METER_H
#define TASKLOADER_METER_H

#include "clock.h"
#include "taskset.h"

/* The two clocks at a job's start, CPU time first. */
struct meter {
    int64_t cpu_ns;
    int64_t wall_ns;
};

/* What an empty job would show on the thread's CPU clock: a reading of it takes 1,000 instructions, more or
 * less, depending on the scheduling class. */
struct meter_costs {
    int64_t ns[POLICY_OTHER + 1]; /* by enum policy */
};

/* Measured once. The calling thread takes on each policy for a moment, as far as it may, and ends as
 * SCHED_OTHER. */
struct meter_costs meter_calibrate(void);

static inline struct meter meter_start(void)
{
    int64_t cpu_ns = thread_cpu_ns();

    return (struct meter){cpu_ns, monotonic_ns()};
}

/* To be called after a reading of `monotonic_ns`, which tells when the job ended. */
static inline int64_t meter_used_ns(const struct meter *meter, const struct meter_costs *costs,
                                    int64_t policy)
{
    int64_t used_ns = thread_cpu_ns() - meter->cpu_ns - costs->ns[policy];

    return used_ns > 0 ? used_ns : 0;
}

#endif
