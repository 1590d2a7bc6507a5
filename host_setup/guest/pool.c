#define _GNU_SOURCE
#include "pool.h"

#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "futex.h"
#include "interrupt.h"
#include "self_check.h"
#include "task.h"
#include "threads.h"

static void *work(void *argument)
{
    struct worker *worker = argument;
    uint32_t seen = 0;
    char name[16];

    snprintf(name, sizeof name, "task%d", worker->idx);
    prctl(PR_SET_NAME, name);
    prctl(PR_SET_TIMERSLACK, 1UL); /* matters to SCHED_OTHER only, whose timers may else be 50 µs late */
    thread_touch_stack();
    atomic_store(&worker->tid, (uint32_t)gettid());
    futex_wake_all(&worker->tid);
    for (;;) {
        /* Into the kernel in any case: what was sent to the last set's task arrives there, not in this
         * one's. */
        do
            futex_wait_until(&worker->calls, seen, INT64_MAX);
        while (atomic_load(&worker->calls) == seen);
        seen++;
        if (worker->leave)
            return NULL;
        task_run(worker->shared, worker->idx);
    }
}

static int start(struct worker *worker)
{
    atomic_store(&worker->calls, 0);
    worker->leave = false;
    int error = thread_start(&worker->thread, work, worker);
    while (!error && atomic_load(&worker->tid) == 0)
        futex_wait_until(&worker->tid, 0, INT64_MAX);
    return error;
}

int pool_open(struct pool *pool, struct shared *shared)
{
    interrupt_install(self_check_is_due);
    for (int i = 0; i < MAX_TASKS; i++) {
        pool->workers[i].shared = shared;
        pool->workers[i].idx = i;
        int error = start(&pool->workers[i]);
        if (error)
            return error;
    }
    return 0;
}

int worker_ready(struct worker *worker, int64_t policy)
{
    if (worker->worn && atomic_load(&worker->tid) != 0) {
        worker->leave = true;
        worker_call(worker);
        pthread_join(worker->thread, NULL);
        atomic_store(&worker->tid, 0);
    }
    int error = atomic_load(&worker->tid) == 0 ? start(worker) : 0;
    /* A thread keeps the deadline it had under SCHED_DEADLINE, until that has passed, and what was left of
     * its time slice under SCHED_RR. */
    worker->worn = policy == POLICY_DEADLINE || policy == POLICY_RR;
    return error;
}

void worker_call(struct worker *worker) { futex_ring(&worker->calls); }
