/* Job records on their way from a task to whoever reports them: one writer, one reader, no system call. */
#ifndef TASKLOADER_RING_H
#define TASKLOADER_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum exit_type {
    JOB_EXIT,
    JOB_EXIT_CRITICAL,
    JOB_EXIT_PERIOD,
    JOB_EXIT_DEADLINE,
    JOB_EXIT_EXTERNAL,
    JOB_EXIT_ERROR,
    JOB_OUT_OF_QUOTA,
    JOB_NOT_SCHEDULED,
    JOB_SKIPPED,
};

#define UNKNOWN (-1)

/* One line of the job table; times relative to the set's start, UNKNOWN where there is none. The host reads
 * it as it lies in the mailbox (docs/mailbox.md). */
struct record {
    int64_t release_ns;
    int64_t start_ns;
    int64_t finish_ns;
    int64_t exec_ns;
    int32_t job;
    int32_t code;
    int32_t preemptions;
    int32_t migrations;
    int16_t cpu_first;
    int16_t cpu_last;
    int16_t exit; /* enum exit_type */
    int16_t task;
};

_Static_assert(sizeof(struct record) == 56, "the mailbox's format");

struct ring {
    _Atomic uint32_t written; /* by the task */
    _Atomic uint32_t read;    /* by the reporter */
    _Atomic uint32_t lost;    /* records that found no room */
    uint32_t capacity;
    uint32_t hurry_at; /* so many waiting records must not wait for the reporter's next turn; 0: never */
    struct record *slots;
};

/* A record of which nothing but the release is known. */
struct record record_empty(int task, int64_t job, int64_t release_ns, enum exit_type exit);

/* Returns how many records now wait to be read; a record without room is counted as lost. */
uint32_t ring_push(struct ring *ring, const struct record *record);

/* The oldest record, or NULL; it stays until `ring_drop`. */
const struct record *ring_peek(const struct ring *ring);
void ring_drop(struct ring *ring);

#endif
