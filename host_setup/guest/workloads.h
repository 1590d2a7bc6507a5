/* The built-in workloads: what one job does. */
#ifndef TASKLOADER_WORKLOADS_H
#define TASKLOADER_WORKLOADS_H

#include <stddef.h>

#include "spin.h"
#include "taskset.h"

/* A job's exit code when its memory limit was reached: the original's number, for executables too. */
#define CODE_OUT_OF_QUOTA 22

/* What a job works with. It may be left at any instruction (it is killed by a jump), so it takes hold of
 * nothing else. */
struct job_context {
    const struct spin *spin;
    struct meter meter;
    int64_t spun_ns; /* when `spin` is to be over */
    int nowhere;     /* where output goes */
    void *memory;    /* as much as the workload asks for, or NULL */
};

/* How much memory its jobs need. */
size_t workload_memory_bytes(const struct workload *workload);

/* Runs any workload but `executable`; returns its exit code. */
int workload_run(const struct workload *workload, struct job_context *context);

#endif
