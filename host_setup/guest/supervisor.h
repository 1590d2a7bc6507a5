/* The thread that keeps the set to its limits: it runs above every task, sleeps until the next limit, and
 * kills. */
#ifndef TASKLOADER_SUPERVISOR_H
#define TASKLOADER_SUPERVISOR_H

#include <pthread.h>
#include <sys/types.h>

#include "shared.h"
#include "watchdog.h"

struct supervisor {
    struct shared *shared;
    const pid_t *pids; /* 0: no process; else valid until the thread was joined */
    struct watchdog *watchdog; /* or NULL */
    pthread_t thread;
    _Atomic int started; /* 0 not yet, 1 with its priority, else -errno */
    _Atomic bool stop_asked;
    _Atomic bool leave;
};

/* Starts the thread and waits until it has its priority. `shared->t0_ns` is set. Returns 0 or an errno; then
 * there is no thread. */
int supervisor_start(struct supervisor *supervisor);

/* Ends the set now, as its stop instant would. */
void supervisor_stop_set(struct supervisor *supervisor);

void supervisor_join(struct supervisor *supervisor);

#endif
