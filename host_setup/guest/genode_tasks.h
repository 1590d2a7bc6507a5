/* Task descriptions of the Genode protocol, and the task set that they become: docs/genode.md. Pure. */
#ifndef TASKLOADER_GENODE_TASKS_H
#define TASKLOADER_GENODE_TASKS_H

#include "request.h"

#define GENODE_MAX_NAME 15
#define GENODE_MAX_ARGUMENTS 8
#define GENODE_MAX_ARGUMENT 63
#define GENODE_EDF 128 /* this priority: no fixed one, the deadline decides */

/* Where the programs lie that came from the client. */
#define GENODE_FILES "/run/genode"

/* As described; times in milliseconds, 0: not given. */
struct genode_task {
    int64_t id;
    int64_t priority; /* 0: the highest */
    int64_t deadline_ms;
    int64_t period_ms;
    int64_t criticaltime_ms;
    int64_t offset_ms;
    int64_t n_jobs;
    int64_t quota_bytes;
    int64_t caps; /* there is no such thing here */
    int64_t cores;
    int64_t coreoffset;
    char pkg[GENODE_MAX_NAME + 1];
    int n_arguments;
    char arguments[GENODE_MAX_ARGUMENTS][GENODE_MAX_ARGUMENT + 1];
};

struct genode_tasks {
    int n;
    struct genode_task tasks[MAX_TASKS];
};

/* Whether a program may be called so: 1-15 of A-Za-z0-9_.-, the first no dot. */
bool genode_name_is_good(const char *name);

/* Adds what the document describes. False with `fault` filled, and nothing added, when it is not valid. */
bool genode_tasks_add(struct genode_tasks *tasks, const char *text, size_t bytes, struct fault *fault);

/* Whether an admission-control goal asks for anything; false with `fault` filled when it cannot be read. */
bool genode_goal_read(const char *text, size_t bytes, bool *goal, struct fault *fault);

/* What the engine shall run on `n_cpus` processors; there is at least one task. */
void genode_taskset(const struct genode_tasks *tasks, bool goal, int n_cpus, struct taskset *set);

#endif
