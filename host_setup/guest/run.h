/* The runs of task sets, one after the other: threads, supervisor, and the lines that tell of them. With a
 * mailbox there are no `job` lines: the records stay where the tasks wrote them. */
#ifndef TASKLOADER_RUN_H
#define TASKLOADER_RUN_H

#include <time.h>

#include "means.h"
#include "out.h"
#include "pool.h"
#include "request.h"
#include "shared.h"
#include "supervisor.h"

struct report_form;

struct run {
    struct shared shared;
    struct pool pool;
    struct supervisor supervisor;
    const struct report_form *form;
    const void *form_data;     /* the form's own */
    int rt_runtime_us;         /* the kernel's bandwidth cap as it is now */
    int64_t bandwidth_free_ns; /* when the kernel has forgotten the SCHED_DEADLINE tasks of earlier sets */
    /* Of the present set: */
    int refused_errno[MAX_TASKS];
    timer_t checks[MAX_TASKS];
    bool has_check[MAX_TASKS];
    bool admitted[MAX_TASKS];
    bool announced[MAX_TASKS]; /* `task_done` was written */
    int n_open;                /* tasks not announced */
    int64_t n_records;         /* reported, or left in the mailbox */
    int64_t over_ns;           /* when the last task was over */
};

/* Starts all threads. What is said of runs has that form. Returns 0 or the errno. */
int run_open(struct run *run, const struct means *means, const struct report_form *form);

/* Makes everything ready, writes `accepted`, `refused`, `start`, and lets the tasks go. `set` has to stay
 * until `run_end`. Returns false with `fault` filled when it cannot; then nothing is left of it. */
bool run_start(struct run *run, const struct taskset *set, struct out *out, struct fault *fault);

/* Ends the set early. `run_report` tells when it is over. */
void run_stop(struct run *run);

/* Writes the lines there are, as far as `out` has room. Returns whether there were any. */
bool run_report(struct run *run, struct out *out);

static inline bool run_is_over(const struct run *run) { return run->n_open == 0; }

/* Ends what still runs, waits for it, and puts the kernel's settings back; writes `end` unless `out` is
 * NULL. */
void run_end(struct run *run, struct out *out);

#endif
