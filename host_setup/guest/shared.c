#include "shared.h"

#include <unistd.h>

#include "futex.h"

/* In equal shares, as far as the tasks need them. */
static void lay_rings(struct shared *shared)
{
    struct record *slots = shared->means->ring_slots;
    int64_t share = RING_SLOTS / shared->set->head.n_tasks;

    for (int i = 0; i < shared->set->head.n_tasks; i++) {
        struct ring *ring = &shared->tasks[i].ring;
        int64_t n_jobs = shared->set->tasks[i].n_jobs;
        ring->capacity = (uint32_t)(n_jobs < share ? n_jobs : share);
        ring->hurry_at = ring->capacity < n_jobs ? ring->capacity / 2 : 0;
        ring->slots = slots;
        slots += ring->capacity;
    }
}

/* Written to, page by page: each page's first write is a fault, which shall not be the task's. */
static void lay_segments(struct shared *shared)
{
    const struct segments *segments = shared->means->segments;

    for (int i = 0; i < shared->set->head.n_tasks; i++) {
        struct ring *ring = &shared->tasks[i].ring;
        char *memory = segments->region->memory + segments->offset[i];
        ring->capacity = segments->capacity[i];
        ring->slots = (struct record *)memory;
        for (size_t at = 0; at < ring->capacity * sizeof *ring->slots; at += REGION_PAGE)
            *(volatile uint64_t *)(memory + at) = 0;
    }
}

void shared_begin(struct shared *shared, const struct taskset *set)
{
    shared->set = set;
    shared->n_at_work = 0;
    shared->reporter_waits = 0;
    shared->stopped_ns = 0;
    for (int i = 0; i < set->head.n_tasks; i++)
        shared->tasks[i] = (struct shared_task){.word = job_word(0, PHASE_PENDING)};
    if (shared->means->segments)
        lay_segments(shared);
    else
        lay_rings(shared);
}

void shared_wake_reporter(struct shared *shared)
{
    const uint64_t one = 1;

    if (atomic_load(&shared->reporter_waits) && atomic_exchange(&shared->reporter_waits, 0))
        if (write(shared->means->reporter_event, &one, sizeof one) < 0)
            return; /* the counter is full: the reporter is awake already */
}

void shared_await_tasks(struct shared *shared)
{
    for (uint32_t n; (n = atomic_load(&shared->n_at_work)) != 0;)
        futex_wait_until(&shared->n_at_work, n, INT64_MAX);
}
