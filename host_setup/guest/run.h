/* One run of a task set: its processes, its supervisor, and the lines that tell of it. With a mailbox there
 * are no `job` lines: the records stay where the tasks wrote them. */
#ifndef TASKLOADER_RUN_H
#define TASKLOADER_RUN_H

#include "clock.h"
#include "means.h"
#include "out.h"
#include "request.h"
#include "shared.h"
#include "supervisor.h"

struct run {
    struct shared *shared;
    struct supervisor supervisor;
    pid_t pids[MAX_TASKS]; /* 0: the task was refused */
    int refused_errno[MAX_TASKS];
    bool exited[MAX_TASKS];    /* its process has ended; collected by `run_end` */
    bool announced[MAX_TASKS]; /* `task_done` was written */
    int n_open;                /* tasks not announced, or whose process has not ended */
    int64_t n_records;         /* reported, or left in the mailbox */
    int64_t over_ns;           /* when the last task was over */
    int rt_runtime_us;         /* the kernel's setting before the set */
};

/* Unless a set is ready within this, it is turned down. */
#define SET_UP_TIMEOUT_NS (60 * NS_PER_S)

/* Makes everything ready, writes `accepted`, `refused`, `start`, and lets the tasks go. Returns false with
 * `fault` filled when it cannot; then nothing is left of it. */
bool run_start(struct run *run, const struct taskset *set, const struct means *means, struct out *out,
               struct fault *fault);

/* Ends the set early. `run_report` tells when it is over. */
void run_stop(struct run *run);

/* Looks which processes have ended: to be called after SIGCHLD. */
void run_note_exits(struct run *run);

/* Writes the lines there are, as far as `out` has room. Returns whether there were any. */
bool run_report(struct run *run, struct out *out);

static inline bool run_is_over(const struct run *run) { return run->n_open == 0; }

/* Kills what is left, collects every process and puts the kernel's settings back; writes `end` unless `out`
 * is NULL. The rings are gone then; segments are not. */
void run_end(struct run *run, struct out *out);

#endif
