/* Clocks, as signed 64-bit nanoseconds. */
#ifndef TASKLOADER_CLOCK_H
#define TASKLOADER_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now); /* cannot fail: the clocks below exist on every Linux */
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* The clock of all instants: never set, the same in every thread. Read without a system call. */
static inline int64_t monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* CPU time of the calling thread: a system call, about 1,000 instructions. */
static inline int64_t thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

static inline struct timespec timespec_of_ns(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

#endif
