/* The kernel's scheduling parameters, set by system call and read back: C libraries have silently done
 * neither. */
#ifndef TASKLOADER_SCHED_H
#define TASKLOADER_SCHED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "taskset.h"

#define SUPERVISOR_PRIORITY 99
#define RT_RUNTIME_DEFAULT_US 950000
#define RT_RUNTIME_OFF_US (-1)

/* Each returns 0, or the errno; EPROTO when the kernel accepted but shows other parameters. `pid` is a
 * thread's, 0 the calling one's. */
int sched_set_task(pid_t pid, const struct task *task);
int sched_set_fifo(pid_t pid, int priority);
int sched_set_deadline(pid_t pid, int64_t runtime_ns, int64_t deadline_ns, int64_t period_ns);
int sched_set_other(pid_t pid);
int sched_set_cpus(pid_t pid, uint64_t mask); /* 0: any */

/* Bandwidth that real-time tasks may use, in µs per second. Returns 0 or the errno. */
int rt_runtime_read(int *runtime_us);
int rt_runtime_write(int runtime_us);

#endif
