/* From validated lines, one after the other, to a whole task set. */
#ifndef TASKLOADER_COLLECT_H
#define TASKLOADER_COLLECT_H

#include "request.h"

struct collector {
    bool open; /* a `taskset` line came; its tasks follow */
    int64_t n_collected;
    struct taskset set;
};

/* Takes a `taskset`, `task` or `run` line. False with `fault` filled when it is out of turn. After a `run`,
 * `set` is whole. */
bool collector_take(struct collector *collector, const struct request *request, struct fault *fault);

#endif
