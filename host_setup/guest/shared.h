/* What the task loader's threads share while a set runs.
 *
 * Per task, one word says which job it is about and in what phase, and every change of hands is a change of
 * that word:
 *
 *     PENDING(k) --task--> RUNNING(k) --task--> ENDED(k) ----------+
 *         ^                    +--supervisor--> KILLED_...(k) --+  |
 *         +----------------------------task, record pushed------+--+      OVER: no more jobs
 *
 * Task and supervisor both leave RUNNING by compare-and-swap: whoever comes first decides how the job ended.
 */
#ifndef TASKLOADER_SHARED_H
#define TASKLOADER_SHARED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "means.h"
#include "ring.h"
#include "taskset.h"

enum phase {
    PHASE_PENDING, /* job k is the next to start: it waits for its release, or for the CPU */
    PHASE_RUNNING,
    PHASE_ENDED,
    PHASE_KILLED_CRITICAL,
    PHASE_KILLED_PERIOD,
    PHASE_KILLED_DEADLINE,
    PHASE_KILLED_EXTERNAL,
    PHASE_OVER,
};

static inline uint64_t job_word(int64_t job, enum phase phase) { return (uint64_t)job << 3 | phase; }
static inline int64_t word_job(uint64_t word) { return (int64_t)(word >> 3); }
static inline enum phase word_phase(uint64_t word) { return (enum phase)(word & 7); }

/* How a job ends whose phase is one of PHASE_KILLED_... */
static inline enum exit_type exit_of_kill(enum phase phase)
{
    switch (phase) {
    case PHASE_KILLED_CRITICAL:
        return JOB_EXIT_CRITICAL;
    case PHASE_KILLED_PERIOD:
        return JOB_EXIT_PERIOD;
    case PHASE_KILLED_DEADLINE:
        return JOB_EXIT_DEADLINE;
    default:
        return JOB_EXIT_EXTERNAL;
    }
}

/* On cache lines of its own. */
struct shared_task {
    _Alignas(128) _Atomic uint64_t word;
    _Atomic int64_t start_ns;     /* of the running job; CLOCK_MONOTONIC, as every time here */
    _Atomic int64_t killed_ns;    /* written by the supervisor before it leaves RUNNING */
    _Atomic uint64_t kill_sent;   /* 1 + the last job whose kill the supervisor has finished sending */
    _Atomic uint32_t wants_start; /* the supervisor asks to be woken when the next job starts */
    _Atomic int32_t group;        /* process group of the running executable; 0: none */
    pid_t tid;                    /* of its thread; 0: the task was refused */
    int64_t over_ns;
    void *memory; /* for its workload, NULL where there is none; see `job_memory.h` */
    size_t memory_bytes;
    struct ring ring;
};

struct shared {
    const struct means *means;
    const struct taskset *set;
    _Atomic uint32_t n_at_work; /* tasks that are not over; the last one wakes who waits on it */
    _Atomic uint32_t supervisor_bell;
    _Atomic uint32_t reporter_waits; /* the reporter asks to be woken when there is a record */
    int64_t t0_ns;
    int64_t stop_at_ns;
    _Atomic int64_t stopped_ns; /* when the set was ended early; 0 while it was not */
    struct shared_task tasks[MAX_TASKS];
};

/* Makes everything as it is before the first job of `set`, which has to stay where it is. With a mailbox the
 * records' places are its segments, else the rings. */
void shared_begin(struct shared *shared, const struct taskset *set);

/* Wakes the reporter if it asked for it. */
void shared_wake_reporter(struct shared *shared);

/* Sleeps until every task is over. */
void shared_await_tasks(struct shared *shared);

#endif
