/* What a task loader sets up once, whichever way it is talked to, and every run uses. */
#ifndef TASKLOADER_MEANS_H
#define TASKLOADER_MEANS_H

#include <stdbool.h>

#include "ring.h"
#include "segments.h"
#include "spin.h"
#include "watchdog.h"

/* All rings of a set together, 8 MiB: a guest may have as little as 64 MiB. */
#define RING_SLOTS ((int64_t)(8 << 20) / (int64_t)sizeof(struct record))

struct means {
    struct spin spin;
    struct meter_costs meter_costs;
    int nowhere;       /* /dev/null: the protocol's channel is the task loader's alone */
    int rt_runtime_us; /* the kernel's bandwidth cap, as it was found */
    /* Of `serve`, which reports the records from rings: */
    int reporter_event;        /* an eventfd: where the tasks wake the reporter */
    struct record *ring_slots; /* RING_SLOTS of them */
    /* Of `mailbox`, which leaves them where they are, else NULL: */
    const struct segments *segments;
    struct watchdog *watchdog;
};

/* Prepares this process for what it is to do, and measures the processor. The members of `serve` and
 * `mailbox` are theirs. Returns 0 or the errno. */
int means_set_up(struct means *means);

#endif
