#define _GNU_SOURCE
#include "shared.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* All rings of a set together: a guest may have as little as 64 MiB. */
#define RING_BYTES ((size_t)8 << 20)

static uint32_t ring_capacity(const struct taskset *set, const struct task *task)
{
    int64_t share = (int64_t)(RING_BYTES / sizeof(struct record)) / set->head.n_tasks;

    return (uint32_t)(task->n_jobs < share ? task->n_jobs : share);
}

static void lay_rings(struct shared *shared, const struct taskset *set, struct record *slots)
{
    for (int i = 0; i < set->head.n_tasks; i++) {
        struct ring *ring = &shared->tasks[i].ring;
        ring->capacity = ring_capacity(set, &set->tasks[i]);
        ring->hurry_at = ring->capacity < set->tasks[i].n_jobs ? ring->capacity / 2 : 0;
        ring->slots = slots;
        slots += ring->capacity;
    }
}

static void lay_segments(struct shared *shared, const struct taskset *set, const struct segments *segments)
{
    shared->region = *segments->region;
    for (int i = 0; i < set->head.n_tasks; i++) {
        shared->tasks[i].segment = segments->offset[i];
        shared->tasks[i].ring.capacity = segments->capacity[i];
        shared->tasks[i].ring.slots = (struct record *)(segments->region->memory + segments->offset[i]);
    }
}

struct shared *shared_map(const struct taskset *set, const struct means *means)
{
    const struct segments *segments = means->segments;
    size_t head_bytes = sizeof(struct shared) + (size_t)set->head.n_tasks * sizeof(struct shared_task);
    size_t set_bytes = offsetof(struct taskset, tasks) + (size_t)set->head.n_tasks * sizeof(struct task);
    size_t n_slots = 0;

    for (int i = 0; i < set->head.n_tasks && !segments; i++)
        n_slots += ring_capacity(set, &set->tasks[i]);
    size_t bytes = head_bytes + n_slots * sizeof(struct record) + set_bytes;
    struct shared *shared =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (shared == MAP_FAILED)
        return NULL;
    shared->bytes = bytes;
    shared->spin = means->spin;
    shared->meter_costs = means->meter_costs;
    shared->reporter_event = means->reporter_event;
    struct record *slots = (struct record *)((char *)shared + head_bytes);
    if (segments)
        lay_segments(shared, set, segments);
    else
        lay_rings(shared, set, slots);
    shared->set = memcpy(slots + n_slots, set, set_bytes);
    return shared;
}

int shared_map_segment(const struct shared *shared, int idx)
{
    const struct shared_task *task = &shared->tasks[idx];

    if (!shared->region.memory)
        return 0;
    return region_map_part(&shared->region, task->segment, task->ring.capacity * sizeof(struct record));
}

void shared_unmap(struct shared *shared) { munmap(shared, shared->bytes); }

void shared_wake_reporter(struct shared *shared)
{
    const uint64_t one = 1;

    if (atomic_load(&shared->reporter_waits) && atomic_exchange(&shared->reporter_waits, 0))
        if (write(shared->reporter_event, &one, sizeof one) < 0)
            return; /* the counter is full: the reporter is awake already */
}
