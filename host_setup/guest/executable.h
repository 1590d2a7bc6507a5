/* The workload `executable`: a program of the user's, one process group a job. */
#ifndef TASKLOADER_EXECUTABLE_H
#define TASKLOADER_EXECUTABLE_H

#include <sys/types.h>

#include "shared.h"

/* How it ended: like a shell's exit code, 128 + signal where a signal ended it, 126/127 where it could not be
 * started. */
struct executable_end {
    int code;
    int64_t exec_ns;
    int64_t preemptions;
};

/* Starts the program for `job` under the caller's scheduling parameters and waits for its end, without taking
 * leave of it: its process group stays valid until `executable_reap`. Its input and outputs are `nowhere`. */
pid_t executable_run(struct shared_task *task, int64_t job, const struct task *spec, int nowhere);

/* Ends what is left of the job's process group and collects the exit code. `pid` is what `executable_run`
 * returned. */
struct executable_end executable_reap(struct shared_task *task, pid_t pid);

#endif
