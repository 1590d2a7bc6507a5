/* What lies where in the mailbox: docs/mailbox.md. Little-endian; checksums are CRC-32. */
#ifndef TASKLOADER_MAILBOX_LAYOUT_H
#define TASKLOADER_MAILBOX_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "region.h"
#include "request.h"

#define MAILBOX_VERSION 1
#define HOST_MAGIC "RTFHOST" /* with its NUL */
#define GUEST_MAGIC "RTFGUEST"
#define MAGIC_BYTES 8

enum {
    HOST_AT = 0x000,
    GUEST_AT = 0x080,
    FILE_TABLE_AT = 0x400,
    TASK_TABLE_AT = 0xc00,
    REQUEST_AT = 0x1000,
    MAX_FILES = 64,
    MAX_REQUEST = (MAX_TASKS + 2) * (MAX_LINE + 1),
    MAX_REPLY = 64 << 10,
};

/* The host's: what it asks for. */
struct host_header {
    char magic[MAGIC_BYTES];
    uint32_t version;
    uint32_t n_files;
    uint64_t sequence; /* 1, 2, 3, ... */
    uint64_t region_bytes;
    uint64_t request_bytes;
    uint32_t request_crc32;
    uint32_t crc32; /* of what is before it, and the used entries of the file table */
};

struct file_entry {
    uint64_t name;
    uint64_t offset;
    uint64_t bytes;
    uint32_t crc32;
    uint32_t zero;
};

enum mailbox_state { MAILBOX_READY = 1, MAILBOX_ANSWERED = 2 };

/* The guest's: what it answers. */
struct guest_header {
    char magic[MAGIC_BYTES];
    uint32_t version;
    uint32_t state;
    uint64_t sequence; /* of the request that this answers */
    uint64_t reply_offset;
    uint64_t reply_bytes;
    uint32_t reply_crc32;
    uint32_t n_tasks;
    uint32_t records_crc32; /* of all records, task after task */
    uint32_t crc32;         /* of what is before it, and the used entries of the task table */
};

struct task_entry {
    uint64_t offset;
    uint64_t n_records;
};

_Static_assert(sizeof(struct host_header) == 48 && sizeof(struct file_entry) == 32, "the mailbox's format");
_Static_assert(sizeof(struct guest_header) == 56 && sizeof(struct task_entry) == 16, "the mailbox's format");
_Static_assert(FILE_TABLE_AT + MAX_FILES * sizeof(struct file_entry) == TASK_TABLE_AT &&
                   TASK_TABLE_AT + MAX_TASKS * sizeof(struct task_entry) == REQUEST_AT,
               "the tables fill the first page");

/* Checks a header and, once that passed, its file table, both copied from the region. Pure. `n_files` is in
 * range before a table is looked at, and every file lies within the region, after the request. */
bool host_header_check(const struct host_header *header, uint64_t region_bytes, struct fault *fault);
bool file_table_check(const struct host_header *header, const struct file_entry *files, struct fault *fault);

/* Where the pages begin that are the guest's to fill: behind the request and the last file. */
uint64_t mailbox_tail(const struct host_header *header, const struct file_entry *files);

#endif
