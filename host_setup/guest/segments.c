#include "segments.h"

bool segments_place(struct segments *segments, const struct region *region, uint64_t offset,
                    const struct taskset *set, struct fault *fault)
{
    uint64_t next = offset; /* cannot overflow: at most MAX_TASKS * MAX_JOBS records */

    segments->region = region;
    for (int i = 0; i < set->head.n_tasks; i++) {
        int64_t n = n_releases(&set->tasks[i], set->head.stop_ns);
        segments->capacity[i] = (uint32_t)(n > 0 ? n : 1); /* a refused task has a record even so */
        segments->offset[i] = next;
        next += pages_up(segments->capacity[i] * sizeof(struct record));
    }
    return next <= region->bytes ||
           fault_set(fault, "capacity", "the set's records end at byte %llu of a mailbox of %llu",
                     (unsigned long long)next, (unsigned long long)region->bytes);
}
