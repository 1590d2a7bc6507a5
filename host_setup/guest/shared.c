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

struct shared *shared_map(const struct taskset *set, const struct spin *spin)
{
    size_t head_bytes = sizeof(struct shared) + (size_t)set->head.n_tasks * sizeof(struct shared_task);
    size_t set_bytes = offsetof(struct taskset, tasks) + (size_t)set->head.n_tasks * sizeof(struct task);
    size_t n_slots = 0;

    for (int i = 0; i < set->head.n_tasks; i++)
        n_slots += ring_capacity(set, &set->tasks[i]);
    size_t bytes = head_bytes + n_slots * sizeof(struct record) + set_bytes;
    struct shared *shared =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (shared == MAP_FAILED)
        return NULL;
    shared->bytes = bytes;
    shared->spin = *spin;
    struct record *slots = (struct record *)((char *)shared + head_bytes);
    for (int i = 0; i < set->head.n_tasks; i++) {
        struct ring *ring = &shared->tasks[i].ring;
        ring->capacity = ring_capacity(set, &set->tasks[i]);
        ring->slots = slots;
        slots += ring->capacity;
    }
    shared->set = memcpy(slots, set, set_bytes);
    return shared;
}

void shared_unmap(struct shared *shared) { munmap(shared, shared->bytes); }

void shared_wake_reporter(struct shared *shared)
{
    const uint64_t one = 1;

    if (atomic_load(&shared->reporter_waits) && atomic_exchange(&shared->reporter_waits, 0))
        if (write(shared->reporter_event, &one, sizeof one) < 0)
            return; /* the counter is full: the reporter is awake already */
}
