/* Memory for a task's jobs, one after the other: there before the first and given back after the last, so
 * that none of them waits for a page, and one that is killed leaves nothing behind. */
#ifndef TASKLOADER_JOB_MEMORY_H
#define TASKLOADER_JOB_MEMORY_H

#include "shared.h"

/* Gives each task the memory that its workload asks for, or none: where that is above the task's limit, or
 * above what the computer has. Its jobs are then OUT_OF_QUOTA. */
void job_memory_get(struct shared *shared);
void job_memory_release(struct shared *shared);

#endif
