/* The thread that keeps a set to its limits: it runs above every task, sleeps until the next limit, and
 * kills. Between two sets it waits. */
#ifndef TASKLOADER_SUPERVISOR_H
#define TASKLOADER_SUPERVISOR_H

#include <pthread.h>

#include "shared.h"

/* The task loader's exit code when one of its threads did not come back from a task. */
#define EXIT_GIVEN_UP 3

struct supervisor {
    struct shared *shared;
    pthread_t thread;
    int no_priority;        /* the errno that says why it has none */
    int64_t watch_ns;       /* when to arm the watchdog again */
    _Atomic uint32_t tid;   /* 0: not running yet */
    _Atomic uint32_t calls; /* futex: sets begun so far */
    _Atomic bool watch;     /* there is a set to watch over */
    _Atomic uint32_t left;  /* futex: 1 once it has left the set */
    _Atomic bool stop_asked;
};

/* Starts the thread, at SCHED_FIFO 99 where it may be. Returns 0 or the errno. */
int supervisor_open(struct supervisor *supervisor, struct shared *shared);

/* Begins to watch over a set whose tasks have their scheduling parameters, and have not been called yet;
 * `shared->t0_ns` is set. Returns 0, or the errno when it does not get above them. */
int supervisor_begin(struct supervisor *supervisor);

/* Ends the set now, as its stop instant would. */
void supervisor_stop_set(struct supervisor *supervisor);

/* Leaves the set, whose tasks are over: it signals none of them after this. */
void supervisor_end(struct supervisor *supervisor);

#endif
