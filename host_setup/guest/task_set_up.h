/* What a task's process does to itself before it is ready to be scheduled. */
#ifndef TASKLOADER_TASK_SET_UP_H
#define TASKLOADER_TASK_SET_UP_H

#include "shared.h"

/* Everything but the scheduling policy, which the task loader sets from outside, task by task. Leaves its
 * result in the task's place in `shared`. */
void task_set_up(struct shared *shared, int idx);

#endif
