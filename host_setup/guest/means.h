/* What a task loader sets up once, whichever way it is talked to, and every run uses. */
#ifndef TASKLOADER_MEANS_H
#define TASKLOADER_MEANS_H

#include <stddef.h>

#include "segments.h"
#include "spin.h"
#include "watchdog.h"

struct means {
    struct spin spin;
    struct meter_costs meter_costs;
    int reporter_event; /* an eventfd: where the tasks wake the reporter */
    /* With a mailbox. Where they are NULL there are rings and a reporter, and nothing is watched: */
    const struct segments *segments;
    struct watchdog *watchdog;
};

/* Prepares this process for what it is to do, and measures the processor. The other members are the
 * caller's. */
void means_set_up(struct means *means);

/* Zeroed memory that the tasks' processes do not have: each would have to copy every page of it before its
 * first job. NULL with errno. */
void *private_memory(size_t bytes);

#endif
