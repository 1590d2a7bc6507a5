/* Waiting on a word of memory. */
#ifndef TASKLOADER_FUTEX_H
#define TASKLOADER_FUTEX_H

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"

/* Sleeps while `*word` is `seen`, until a wake or the instant `until_ns` of CLOCK_MONOTONIC (INT64_MAX: for
 * ever). May return early. */
static inline void futex_wait_until(_Atomic uint32_t *word, uint32_t seen, int64_t until_ns)
{
    struct timespec until = timespec_of_ns(until_ns);

    syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, seen, until_ns == INT64_MAX ? NULL : &until, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

static inline void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Changes `*word`, which makes every sleeper on it look again. */
static inline void futex_ring(_Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    futex_wake_all(word);
}

#endif
