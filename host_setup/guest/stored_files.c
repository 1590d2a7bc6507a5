#define _GNU_SOURCE
#include "stored_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32.h"

#define FOLDER "/run/workloads"
#define PIECE ((uint64_t)64 << 10)

int stored_files_open(void) { return mkdir(FOLDER, 0755) == 0 || errno == EEXIST ? 0 : errno; }

/* The file's content, piece by piece, with its checksum. Returns 0 or the errno. */
static int copy(const struct file_entry *file, const char *bytes, int fd, uint32_t *crc32,
                void (*go_on)(void *), void *argument)
{
    *crc32 = 0;
    for (uint64_t done = 0; done < file->bytes;) {
        uint64_t piece = file->bytes - done < PIECE ? file->bytes - done : PIECE;
        ssize_t n = write(fd, bytes + done, piece);
        if (n < 0)
            return errno;
        *crc32 = crc32_of(*crc32, bytes + done, (size_t)n);
        done += (uint64_t)n;
        go_on(argument);
    }
    return fchmod(fd, 0755) == 0 ? 0 : errno;
}

bool stored_file_put(const struct file_entry *file, const char *bytes, void (*go_on)(void *), void *argument,
                     struct fault *fault)
{
    char path[64], part[72];
    uint32_t crc32 = 0;

    snprintf(path, sizeof path, FOLDER "/%016" PRIx64, file->name);
    if (access(path, F_OK) == 0)
        return true;
    snprintf(part, sizeof part, "%s.part", path);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    int error = fd < 0 ? errno : copy(file, bytes, fd, &crc32, go_on, argument);
    if (fd >= 0)
        close(fd);
    bool whole = !error && crc32 == file->crc32;
    if (whole && rename(part, path) == 0)
        return true;
    error = error || !whole ? error : errno;
    unlink(part);
    return fault_set(fault, "file", "%016" PRIx64 ": %s", file->name,
                     error ? strerror(error) : "its checksum is wrong");
}
