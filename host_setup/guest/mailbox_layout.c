#include "mailbox_layout.h"

#include <string.h>

#include "crc32.h"

bool host_header_check(const struct host_header *header, uint64_t region_bytes, struct fault *fault)
{
    if (memcmp(header->magic, HOST_MAGIC, MAGIC_BYTES) != 0)
        return fault_set(fault, "mailbox", "no host's header");
    if (header->version != MAILBOX_VERSION)
        return fault_set(fault, "mailbox", "version %u, not %d", header->version, MAILBOX_VERSION);
    if (header->region_bytes != region_bytes)
        return fault_set(fault, "mailbox", "meant for %llu bytes, not %llu",
                         (unsigned long long)header->region_bytes, (unsigned long long)region_bytes);
    if (header->n_files > MAX_FILES)
        return fault_set(fault, "mailbox", "%u files are above %d", header->n_files, MAX_FILES);
    if (header->request_bytes > MAX_REQUEST || REQUEST_AT + header->request_bytes > region_bytes)
        return fault_set(fault, "mailbox", "a request of %llu bytes",
                         (unsigned long long)header->request_bytes);
    return true;
}

static bool file_check(const struct host_header *header, const struct file_entry *file, struct fault *fault)
{
    if (file->zero != 0 || file->offset % REGION_PAGE != 0 ||
        file->offset < REQUEST_AT + header->request_bytes || file->offset > header->region_bytes ||
        file->bytes > header->region_bytes - file->offset)
        return fault_set(fault, "mailbox", "file %016llx has no place of its own",
                         (unsigned long long)file->name);
    return true;
}

bool file_table_check(const struct host_header *header, const struct file_entry *files, struct fault *fault)
{
    uint32_t crc32 = crc32_of(0, header, offsetof(struct host_header, crc32));

    if (crc32_of(crc32, files, header->n_files * sizeof *files) != header->crc32)
        return fault_set(fault, "mailbox", "the header's checksum is wrong");
    for (uint32_t i = 0; i < header->n_files; i++)
        if (!file_check(header, &files[i], fault))
            return false;
    return true;
}

uint64_t mailbox_tail(const struct host_header *header, const struct file_entry *files)
{
    uint64_t tail = REQUEST_AT + header->request_bytes;

    for (uint32_t i = 0; i < header->n_files; i++)
        tail = files[i].offset + files[i].bytes > tail ? files[i].offset + files[i].bytes : tail;
    return pages_up(tail);
}
