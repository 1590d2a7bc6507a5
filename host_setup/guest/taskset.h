/* A validated task set: what the parser hands over and everything else relies on. */
#ifndef TASKLOADER_TASKSET_H
#define TASKLOADER_TASKSET_H

#include <stdbool.h>
#include <stdint.h>

#define PROTOCOL_VERSION 2
#define MAX_TASKS 64
#define MAX_JOBS 10000000
#define MAX_TIME_NS (INT64_MAX / 10)
#define MAX_TOKEN 64
#define MAX_LINE 4095
#define MAX_PRIORITY 98 /* 99 is the supervisor's */
#define NOT_GIVEN INT64_C(-1)

enum overrun { OVERRUN_CONTINUE, OVERRUN_KILL_AND_SKIP, OVERRUN_ABORT_AT_DEADLINE };

enum policy { POLICY_FIFO, POLICY_RR, POLICY_DEADLINE, POLICY_OTHER };

enum workload_kind {
    WORKLOAD_SPIN,
    WORKLOAD_HEY,
    WORKLOAD_NAMASTE,
    WORKLOAD_PI,
    WORKLOAD_TUMATMUL,
    WORKLOAD_LINPACK,
    WORKLOAD_COND_MOD,
    WORKLOAD_COND_42,
    WORKLOAD_IDLE,
    WORKLOAD_EXECUTABLE,
};

struct workload {
    enum workload_kind kind;
    int64_t number;           /* the one numeric argument, or NOT_GIVEN */
    int64_t n_arguments;      /* executable: how many strings `arguments` holds, the path first */
    char arguments[MAX_LINE]; /* executable: the strings, each ended by a NUL */
};

/* Times may be NOT_GIVEN where the protocol allows `-`. Every instant `release_ns()` can return is below 2 *
 * MAX_TIME_NS. */
struct task {
    int64_t policy; /* enum policy */
    int64_t priority;
    int64_t period_ns;
    int64_t deadline_ns;
    int64_t offset_ns;
    int64_t n_jobs;
    int64_t kill_after_start_ns;
    int64_t mem_limit_bytes;
    uint64_t cpus; /* mask, 0: any */
    int64_t dl_runtime_ns;
    int64_t dl_deadline_ns;
    int64_t dl_period_ns;
    struct workload workload;
};

struct taskset_head {
    char id[MAX_TOKEN + 1];
    int64_t n_tasks;
    int64_t overrun; /* enum overrun */
    int64_t admission_control;
    int64_t start_delay_ns;
    int64_t stop_ns;
};

struct taskset {
    struct taskset_head head;
    struct task tasks[MAX_TASKS];
};

static inline bool task_is_deadline(const struct task *task) { return task->policy == POLICY_DEADLINE; }
static inline bool task_is_executable(const struct task *task)
{
    return task->workload.kind == WORKLOAD_EXECUTABLE;
}
static inline bool task_is_realtime(const struct task *task) { return task->policy != POLICY_OTHER; }

static inline bool taskset_has(const struct taskset *set, bool (*is)(const struct task *))
{
    for (int i = 0; i < set->head.n_tasks; i++)
        if (is(&set->tasks[i]))
            return true;
    return false;
}

/* Nominal release of job `job`, relative to the set's start instant. `job` may be `n_jobs`: the release after
 * the last. */
static inline int64_t release_ns(const struct task *task, int64_t job)
{
    return task->offset_ns + (job == 0 ? 0 : job * task->period_ns);
}

/* How many jobs the task releases before `stop_ns`. */
static inline int64_t n_releases(const struct task *task, int64_t stop_ns)
{
    if (task->offset_ns >= stop_ns)
        return 0;
    int64_t n = task->period_ns == NOT_GIVEN ? 1 : (stop_ns - task->offset_ns - 1) / task->period_ns + 1;
    return n < task->n_jobs ? n : task->n_jobs;
}

/* The instant, relative to the start, at which the overrun policy gives job `job` up; INT64_MAX where it
 * never does. */
static inline int64_t overrun_limit_ns(const struct task *task, enum overrun overrun, int64_t job)
{
    if (overrun == OVERRUN_KILL_AND_SKIP && task->period_ns != NOT_GIVEN)
        return release_ns(task, job + 1);
    if (overrun == OVERRUN_ABORT_AT_DEADLINE && task->deadline_ns != NOT_GIVEN)
        return release_ns(task, job) + task->deadline_ns;
    return INT64_MAX;
}

#endif
