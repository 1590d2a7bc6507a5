/* The built-in workloads: what one job does. */
#ifndef TASKLOADER_WORKLOADS_H
#define TASKLOADER_WORKLOADS_H

#include <stddef.h>

#include "spin.h"
#include "taskset.h"

/* A job's exit code when its memory limit was reached: the original's number, for executables too. */
#define CODE_OUT_OF_QUOTA 22

/* What a running job holds. A job may be left at any instruction (it is killed by a jump), so whatever it
 * owns is in here. */
struct job_context {
    const struct spin *spin;
    struct meter meter;
    int64_t spun_ns; /* when `spin` is to be over */
    int64_t mem_limit_bytes; /* or NOT_GIVEN */
    void *volatile memory;
    volatile size_t memory_bytes;
};

/* Runs any workload but `executable`; returns its exit code. */
int workload_run(const struct workload *workload, struct job_context *context);

/* Gives back what the job held, however it ended. */
void job_context_release(struct job_context *context);

#endif
