#include "ring.h"

#include <stddef.h>

struct record record_empty(int task, int64_t job, int64_t release_ns, enum exit_type exit)
{
    return (struct record){
        .release_ns = release_ns,
        .start_ns = UNKNOWN,
        .finish_ns = UNKNOWN,
        .exec_ns = UNKNOWN,
        .job = (int32_t)job,
        .code = UNKNOWN,
        .preemptions = UNKNOWN,
        .migrations = UNKNOWN,
        .cpu_first = UNKNOWN,
        .cpu_last = UNKNOWN,
        .exit = (int16_t)exit,
        .task = (int16_t)task,
    };
}

uint32_t ring_push(struct ring *ring, const struct record *record)
{
    uint32_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
    uint32_t waiting = written - atomic_load_explicit(&ring->read, memory_order_acquire);

    if (waiting == ring->capacity) {
        atomic_fetch_add_explicit(&ring->lost, 1, memory_order_relaxed);
        return waiting;
    }
    ring->slots[written % ring->capacity] = *record;
    atomic_store_explicit(&ring->written, written + 1, memory_order_release);
    return waiting + 1;
}

const struct record *ring_peek(const struct ring *ring)
{
    uint32_t read = atomic_load_explicit(&ring->read, memory_order_relaxed);

    if (read == atomic_load_explicit(&ring->written, memory_order_acquire))
        return NULL;
    return &ring->slots[read % ring->capacity];
}

void ring_drop(struct ring *ring) { atomic_fetch_add_explicit(&ring->read, 1, memory_order_release); }
