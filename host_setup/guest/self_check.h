/* A task's own watch over its running job, for sets that overload SCHED_DEADLINE.
 *
 * When SCHED_DEADLINE tasks together ask for more than the processor, their deadlines fall behind the clock,
 * and a deadline that has passed is earlier than any that the supervisor can get: it would wait for as long
 * as they have budget, seconds perhaps. So each such task looks at the clock itself, whenever it has used up
 * some more CPU time. The kernel counts that by ticks: a job is ended at most one tick of its own CPU time
 * late. */
#ifndef TASKLOADER_SELF_CHECK_H
#define TASKLOADER_SELF_CHECK_H

#include "shared.h"

/* Starts the watch over the calling process, which runs task `idx`, where the set needs it. Returns 0 or the
 * errno. */
int self_check_start(struct shared *shared, int idx);

#endif
