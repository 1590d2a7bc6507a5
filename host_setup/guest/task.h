/* The life of one task in a set, in a thread of its own. */
#ifndef TASKLOADER_TASK_H
#define TASKLOADER_TASK_H

#include "shared.h"

/* Runs the jobs of task `idx` in the calling thread, whose scheduling parameters are the task's. */
void task_run(struct shared *shared, int idx);

#endif
