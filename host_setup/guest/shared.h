/* What the task loader's process and its tasks' processes share while a set runs.
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
#include <stddef.h>
#include <stdint.h>

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

enum set_up { SET_UP_NOT_YET, SET_UP_READY, SET_UP_FAILED, SET_UP_REFUSED };

/* On cache lines of its own. */
struct shared_task {
    _Alignas(128) _Atomic uint64_t word;
    _Atomic int64_t start_ns;     /* of the running job; CLOCK_MONOTONIC, as every time here */
    _Atomic int64_t killed_ns;    /* written by the supervisor before it leaves RUNNING */
    _Atomic uint64_t kill_sent;   /* 1 + the last job whose kill the supervisor has finished sending */
    _Atomic uint32_t wants_start; /* the supervisor asks to be woken when the next job starts */
    _Atomic int32_t group;        /* process group of the running executable; 0: none */
    _Atomic uint32_t set_up;      /* enum set_up */
    int set_up_errno;
    const char *set_up_step; /* what failed; a literal, valid in every process */
    int64_t over_ns;
    uint64_t segment; /* offset in the mailbox */
    struct ring ring; /* its slots are at the same address in the task loader and in the task */
};

struct shared {
    _Atomic uint32_t ready_bell; /* a task's process has set itself up */
    _Atomic uint32_t gate;       /* 1 once t0_ns is set: tasks go to their first release */
    _Atomic uint32_t supervisor_bell;
    _Atomic uint32_t reporter_waits; /* the reporter asks to be woken when there is a record */
    int reporter_event;              /* an eventfd */
    int64_t t0_ns;
    int64_t stop_at_ns;
    _Atomic int64_t stopped_ns; /* when the set was ended early; 0 while it was not */
    struct spin spin;
    struct meter_costs meter_costs;
    struct region region; /* without a mailbox it has no memory */
    const struct taskset *set; /* in here too: the tasks inherit nothing else */
    size_t bytes;
    struct shared_task tasks[];
};

/* Maps what a run of this set needs, with a copy of the set. Where `means` has no segments there are rings
 * for the job records in it, too, and nothing in it meets a page fault later. NULL with errno when there is
 * no memory. */
struct shared *shared_map(const struct taskset *set, const struct means *means);

/* In the process of task `idx`: makes its segment accessible, if it has one. Returns 0 or the errno. */
int shared_map_segment(const struct shared *shared, int idx);
void shared_unmap(struct shared *shared);

/* Wakes the reporter if it asked for it. */
void shared_wake_reporter(struct shared *shared);

#endif
