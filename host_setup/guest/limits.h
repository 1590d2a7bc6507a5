/* When a running job has to end. */
#ifndef TASKLOADER_LIMITS_H
#define TASKLOADER_LIMITS_H

#include "shared.h"

/* The first limit of job `job` of task `idx` but for the set's end, and the phase in which it would leave the
 * job; INT64_MAX for none. `start_ns` is when the job started or, for a lower bound, its release. Instants
 * are CLOCK_MONOTONIC's. */
int64_t limit_ns(const struct shared *shared, int idx, int64_t job, int64_t start_ns, enum phase *phase);

/* Takes a running job from its task, unless it has just ended by itself or was taken already. */
bool take_job(struct shared_task *task, int64_t job, enum phase phase, int64_t now_ns);

#endif
