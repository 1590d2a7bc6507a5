/* The life of one task, in a process of its own. */
#ifndef TASKLOADER_TASK_H
#define TASKLOADER_TASK_H

#include <sys/types.h>

#include "shared.h"

/* To be called in a new process: sets it up, waits for the gate, runs the jobs, and ends the process.
 * `parent` is the task loader. */
_Noreturn void task_main(struct shared *shared, int idx, pid_t parent);

#endif
