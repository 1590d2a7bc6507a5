#define _GNU_SOURCE
#include "mailbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bell.h"
#include "collect.h"
#include "crc32.h"
#include "mailbox_layout.h"
#include "report.h"
#include "run.h"
#include "stored_files.h"

/* After the bell, before the first look at the request. QEMU stops the processor at once but its clock a
 * moment later, and may have skipped to the next timer by then (half a millisecond, say), as it does with
 * an idle guest: whether it did is the host's timing. Busy for a few timer ticks, which then come at the
 * same instants either way, and asleep for some more. */
#define BUSY_NS (12 * NS_PER_MS)
#define ASLEEP_NS (8 * NS_PER_MS)
#define BUSY_PART_NS (100 * NS_PER_US)

/* From one look at the watchdog to the next, where no set's end is waited for. */
#define PATIENCE_NS (10 * NS_PER_S)

/* What it may take to make a set ready: a slow processor clears the memory of large workloads for so long. */
#define SET_UP_NS (70 * NS_PER_S)

#define PIECE ((size_t)64 << 10)

struct mailbox {
    struct region region;
    struct bell bell;
    struct watchdog watchdog;
    struct means means;
    struct segments segments;
    uint64_t sequence; /* of the last request that was one */
    uint64_t reply_at;
    struct run run;
    struct collector collector;
    struct request request;
    struct host_header header;
    struct file_entry files[MAX_FILES];
    struct guest_header answer;
    struct task_entry tasks[MAX_TASKS];
    struct out out;
    _Alignas(8) char text[MAX_REQUEST];
};

static void go_on(void *watchdog) { watchdog_arm(watchdog, PATIENCE_NS); }

/* The request, to a private copy, checked. */
static bool take_request(struct mailbox *mailbox, struct fault *fault)
{
    struct host_header *header = &mailbox->header;
    char *memory = mailbox->region.memory;

    mailbox->reply_at = REQUEST_AT;
    words_copy(header, memory + HOST_AT, sizeof *header);
    if (!host_header_check(header, mailbox->region.bytes, fault))
        return false;
    words_copy(mailbox->files, memory + FILE_TABLE_AT, header->n_files * sizeof mailbox->files[0]);
    if (!file_table_check(header, mailbox->files, fault))
        return false;
    if (header->sequence != mailbox->sequence + 1)
        return fault_set(fault, "mailbox", "request %llu after %llu", (unsigned long long)header->sequence,
                         (unsigned long long)mailbox->sequence);
    words_copy(mailbox->text, memory + REQUEST_AT, header->request_bytes);
    if (crc32_of(0, mailbox->text, header->request_bytes) != header->request_crc32)
        return fault_set(fault, "mailbox", "the request's checksum is wrong");
    mailbox->sequence = header->sequence;
    return true;
}

/* Where the answer goes: behind all that the host put there. */
static bool place_answer(struct mailbox *mailbox, struct fault *fault)
{
    uint64_t tail = mailbox_tail(&mailbox->header, mailbox->files);

    if (tail + MAX_REPLY > mailbox->region.bytes)
        return fault_set(fault, "capacity", "no room for a reply behind byte %llu", (unsigned long long)tail);
    mailbox->reply_at = tail;
    return true;
}

static bool store_files(struct mailbox *mailbox, struct fault *fault)
{
    for (uint32_t i = 0; i < mailbox->header.n_files; i++) {
        const struct file_entry *file = &mailbox->files[i];
        if (!stored_file_put(file, mailbox->region.memory + file->offset, go_on, &mailbox->watchdog, fault))
            return false;
    }
    return true;
}

/* The lines of the request, which have to be exactly one set. */
static bool parse(struct mailbox *mailbox, struct fault *fault)
{
    const char *line = mailbox->text;
    const char *end = line + mailbox->header.request_bytes;
    bool whole = false;

    mailbox->collector.open = false;
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        if (whole || !newline)
            return fault_set(fault, "order", whole ? "a line after the run" : "the last line is not whole");
        if (newline - line > MAX_LINE)
            return fault_set(fault, "overlong", "a line has at most %d bytes", MAX_LINE);
        if (!request_parse(line, (size_t)(newline - line), &mailbox->request, fault) ||
            !collector_take(&mailbox->collector, &mailbox->request, fault))
            return false;
        whole = mailbox->request.verb == VERB_RUN;
        line = newline + 1;
    }
    return whole || fault_set(fault, "order", "no run");
}

static bool run_set(struct mailbox *mailbox, struct fault *fault)
{
    struct run *run = &mailbox->run;
    const struct taskset *set = &mailbox->collector.set;

    if (!segments_place(&mailbox->segments, &mailbox->region, mailbox->reply_at + MAX_REPLY, set, fault))
        return false;
    watchdog_arm(&mailbox->watchdog, SET_UP_NS);
    if (!run_start(run, set, &mailbox->out, fault))
        return false;
    shared_await_tasks(&run->shared);
    run_report(run, &mailbox->out);
    for (int i = 0; i < set->head.n_tasks; i++)
        mailbox->tasks[i] =
            (struct task_entry){mailbox->segments.offset[i], atomic_load(&run->shared.tasks[i].ring.written)};
    mailbox->answer.n_tasks = (uint32_t)set->head.n_tasks;
    run_end(run, &mailbox->out);
    return true;
}

/* Over the records of all tasks; may take seconds of a slow processor. */
static uint32_t records_crc32(struct mailbox *mailbox)
{
    uint32_t crc32 = 0;

    for (uint32_t i = 0; i < mailbox->answer.n_tasks; i++) {
        const char *next = mailbox->region.memory + mailbox->tasks[i].offset;
        size_t left = mailbox->tasks[i].n_records * sizeof(struct record);
        for (size_t piece; left > 0; next += piece, left -= piece) {
            piece = left < PIECE ? left : PIECE;
            crc32 = crc32_of(crc32, next, piece);
            go_on(&mailbox->watchdog);
        }
    }
    return crc32;
}

static void write_answer(struct mailbox *mailbox, enum mailbox_state state)
{
    struct guest_header *answer = &mailbox->answer;
    char *memory = mailbox->region.memory;
    size_t table_bytes = answer->n_tasks * sizeof mailbox->tasks[0];

    memcpy(answer->magic, GUEST_MAGIC, MAGIC_BYTES);
    answer->version = MAILBOX_VERSION;
    answer->state = state;
    answer->sequence = mailbox->header.sequence;
    answer->reply_offset = mailbox->reply_at;
    answer->reply_bytes = mailbox->out.used;
    answer->reply_crc32 = crc32_of(0, mailbox->out.bytes, mailbox->out.used);
    answer->records_crc32 = records_crc32(mailbox);
    answer->crc32 = crc32_of(0, answer, offsetof(struct guest_header, crc32));
    answer->crc32 = crc32_of(answer->crc32, mailbox->tasks, table_bytes);
    words_copy(memory + mailbox->reply_at, mailbox->out.bytes, mailbox->out.used);
    words_copy(memory + TASK_TABLE_AT, mailbox->tasks, table_bytes);
    words_copy(memory + GUEST_AT, answer, sizeof *answer);
}

static void answer_request(struct mailbox *mailbox)
{
    struct fault fault;

    mailbox->out.used = 0;
    mailbox->answer.n_tasks = 0;
    if (!take_request(mailbox, &fault) || !place_answer(mailbox, &fault) || !store_files(mailbox, &fault) ||
        !parse(mailbox, &fault) || !run_set(mailbox, &fault)) {
        mailbox->out.used = 0;
        report_fault(&fault, &mailbox->out);
    }
    write_answer(mailbox, MAILBOX_ANSWERED);
}

/* Returns when the host has put the next request in, at an instant that was fixed before the bell: neither
 * the pause nor what happened to the clock in it can be seen any more. A timer wakes to the nanosecond. */
static void ring(struct mailbox *mailbox)
{
    const int64_t busy_until_ns = monotonic_ns() + BUSY_NS;
    const struct timespec until = timespec_of_ns(busy_until_ns + ASLEEP_NS);

    watchdog_arm(&mailbox->watchdog, PATIENCE_NS);
    bell_ring(&mailbox->bell, BELL_PANICKED);
    while (monotonic_ns() < busy_until_ns)
        spin_blindly(&mailbox->means.spin, BUSY_PART_NS);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static bool can(int error, const char *what)
{
    if (error)
        fprintf(stderr, "taskloader: %s: %s\n", what, strerror(error));
    return error == 0;
}

/* All that can be done once is done here, so that a snapshot taken at the first bell holds it. */
static bool set_up(struct mailbox *mailbox)
{
    mailbox->out.fd = -1;
    mailbox->means.reporter_event = -1;
    mailbox->means.segments = &mailbox->segments;
    mailbox->means.watchdog = &mailbox->watchdog;
    crc32_prepare();
    if (!can(region_open(&mailbox->region), "the mailbox (-device ivshmem-plain)") ||
        !can(bell_open(&mailbox->bell), "the bell (-device pvpanic-pci)") ||
        !can(watchdog_open(&mailbox->watchdog), "the watchdog (-device i6300esb)") ||
        !can(stored_files_open(), "the folder for workloads"))
        return false;
    return can(means_set_up(&mailbox->means), "the means for task sets") &&
           can(run_open(&mailbox->run, &mailbox->means, &REPORT_LINES), "the threads for tasks");
}

static int converse(struct mailbox *mailbox)
{
    if (!set_up(mailbox))
        return 1;
    mailbox->reply_at = REQUEST_AT;
    report_hello(&mailbox->means.spin, &mailbox->out);
    write_answer(mailbox, MAILBOX_READY);
    for (;;) {
        ring(mailbox);
        answer_request(mailbox);
    }
}

int mailbox(void)
{
    static struct mailbox mailbox; /* too large for the stack */

    return converse(&mailbox);
}
