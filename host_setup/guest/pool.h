/* The threads that tasks run in. They are there before the first set, stacks and all, and wait in between: a
 * set starts and ends without a thread or a page that is new to the kernel. */
#ifndef TASKLOADER_POOL_H
#define TASKLOADER_POOL_H

#include <pthread.h>

#include "shared.h"

struct worker {
    struct shared *shared;
    int idx; /* of the task that it runs in each set */
    pthread_t thread;
    _Atomic uint32_t tid; /* 0: not running yet */
    _Atomic uint32_t calls;
    bool leave;
    bool worn; /* it has run under a policy that leaves traces in the kernel's idea of it */
};

struct pool {
    struct worker workers[MAX_TASKS];
};

/* Starts the threads. Returns 0 or the errno. The calling thread's signal mask is theirs, too. */
int pool_open(struct pool *pool, struct shared *shared);

/* Readies the thread for a task under `policy`: one that such a policy was used on before is replaced.
 * Returns 0 or the errno. */
int worker_ready(struct worker *worker, int64_t policy);

/* Has the thread run its task of the present set, to its end. */
void worker_call(struct worker *worker);

#endif
