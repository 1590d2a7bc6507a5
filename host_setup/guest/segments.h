/* The places of a set's job records in the mailbox: one segment a task, with room for all that it can have.
 * */
#ifndef TASKLOADER_SEGMENTS_H
#define TASKLOADER_SEGMENTS_H

#include "region.h"
#include "request.h"
#include "ring.h"

/* The segments of a set. */
struct segments {
    const struct region *region;
    uint64_t offset[MAX_TASKS]; /* multiples of REGION_PAGE */
    uint32_t capacity[MAX_TASKS];
};

/* Lays a segment for each task into `region`, from `offset` on. False with `fault` filled when they do not
 * fit. */
bool segments_place(struct segments *segments, const struct region *region, uint64_t offset,
                    const struct taskset *set, struct fault *fault);

#endif
