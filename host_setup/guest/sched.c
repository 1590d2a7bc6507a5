#define _GNU_SOURCE
#include "sched.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SCHED_DEADLINE
#define SCHED_DEADLINE 6
#endif

/* The kernel's `struct sched_attr`, first version; the C library of Debian 12 does not declare it. */
struct attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;
    uint64_t deadline;
    uint64_t period;
};

static int set(pid_t pid, const struct attributes *wanted)
{
    struct attributes got = {0};

    if (syscall(SYS_sched_setattr, pid, wanted, 0) != 0)
        return errno;
    if (syscall(SYS_sched_getattr, pid, &got, sizeof got, 0) != 0)
        return errno;
    if (got.policy != wanted->policy || got.priority != wanted->priority)
        return EPROTO;
    if (wanted->policy == SCHED_DEADLINE &&
        (got.runtime != wanted->runtime || got.deadline != wanted->deadline || got.period != wanted->period))
        return EPROTO;
    return 0;
}

int sched_set_fifo(pid_t pid, int priority)
{
    return set(pid, &(struct attributes){.size = sizeof(struct attributes),
                                         .policy = SCHED_FIFO,
                                         .priority = (uint32_t)priority});
}

int sched_set_deadline(pid_t pid, int64_t runtime_ns, int64_t deadline_ns, int64_t period_ns)
{
    return set(pid, &(struct attributes){.size = sizeof(struct attributes),
                                         .policy = SCHED_DEADLINE,
                                         .runtime = (uint64_t)runtime_ns,
                                         .deadline = (uint64_t)deadline_ns,
                                         .period = (uint64_t)period_ns});
}

int sched_set_other(pid_t pid)
{
    return set(pid, &(struct attributes){.size = sizeof(struct attributes), .policy = SCHED_OTHER});
}

int sched_set_task(pid_t pid, const struct task *task)
{
    switch ((enum policy)task->policy) {
    case POLICY_FIFO:
        return sched_set_fifo(pid, (int)task->priority);
    case POLICY_RR:
        return set(pid, &(struct attributes){.size = sizeof(struct attributes),
                                             .policy = SCHED_RR,
                                             .priority = (uint32_t)task->priority});
    case POLICY_DEADLINE:
        return sched_set_deadline(pid, task->dl_runtime_ns, task->dl_deadline_ns, task->dl_period_ns);
    case POLICY_OTHER:
        return sched_set_other(pid);
    }
    return EINVAL;
}

int sched_set_cpus(pid_t pid, uint64_t mask)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    for (int cpu = 0; cpu < (mask ? 64 : CPU_SETSIZE); cpu++)
        if (mask == 0 || mask >> cpu & 1)
            CPU_SET(cpu, &cpus);
    return sched_setaffinity(pid, sizeof cpus, &cpus) == 0 ? 0 : errno;
}

static const char RT_RUNTIME[] = "/proc/sys/kernel/sched_rt_runtime_us";

int rt_runtime_read(int *runtime_us)
{
    char text[32] = "";
    int fd = open(RT_RUNTIME, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    ssize_t n = read(fd, text, sizeof text - 1);
    int error = n < 0 ? errno : 0;
    close(fd);
    *runtime_us = atoi(text);
    return error;
}

int rt_runtime_write(int runtime_us)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%d\n", runtime_us);
    int fd = open(RT_RUNTIME, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    int error = write(fd, text, (size_t)length) < 0 ? errno : 0;
    close(fd);
    return error;
}
