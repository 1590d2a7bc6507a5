/* A task's own watch over its running job, for sets that overload SCHED_DEADLINE.
 *
 * When SCHED_DEADLINE tasks together ask for more than the processor, their deadlines fall behind the clock,
 * and a deadline that has passed is earlier than any that the supervisor can get: it would wait for as long
 * as they have budget, seconds perhaps. So each such task looks at the clock itself, whenever it has used up
 * some more CPU time. The kernel counts that by ticks: a job is ended at most one tick of its own CPU time
 * late. */
#ifndef TASKLOADER_SELF_CHECK_H
#define TASKLOADER_SELF_CHECK_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "shared.h"

/* Whether the set's SCHED_DEADLINE tasks together may use more than one processor has. */
bool self_check_is_needed(const struct taskset *set);

/* Starts the watch over a thread. Returns 0 or the errno. */
int self_check_start(timer_t *timer, pthread_t thread, pid_t tid);
void self_check_stop(timer_t timer);

/* The calling thread runs task `idx` from now on. */
void self_check_watch(struct shared *shared, int idx);

/* In the signal handler: takes the calling thread's running job if its time has come, as the supervisor
 * would. */
bool self_check_is_due(void);

#endif
