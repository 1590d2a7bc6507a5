#define _GNU_SOURCE
#include "genode_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define MAX_KEPT 256
#define PART GENODE_FILES "/.part" /* no program's name */

int genode_files_open(struct genode_files *files)
{
    struct sysinfo info;

    files->fd = -1;
    if (sysinfo(&info) != 0)
        return errno;
    /* They lie in memory, and the tasks need some, too. */
    files->room_bytes = (uint64_t)info.totalram * info.mem_unit / 4;
    return mkdir(GENODE_FILES, 0755) == 0 || errno == EEXIST ? 0 : errno;
}

static void path_of(const char *name, char path[64]) { snprintf(path, 64, GENODE_FILES "/%s", name); }

/* What a file of this name took, which is no more. */
static void forget(struct genode_files *files, const char *name)
{
    struct stat status;
    char path[64];

    path_of(name, path);
    if (stat(path, &status) != 0 || unlink(path) != 0)
        return;
    files->room_bytes += (uint64_t)status.st_size;
    files->n -= files->n > 0;
}

void genode_file_begin(struct genode_files *files, const char *name, uint32_t bytes)
{
    genode_file_abandon(files);
    if (!genode_name_is_good(name))
        return;
    forget(files, name);
    if (files->n == MAX_KEPT || bytes > files->room_bytes)
        return;
    files->fd = open(PART, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    files->bytes = 0;
    strcpy(files->name, name);
}

void genode_file_piece(struct genode_files *files, struct slice piece)
{
    while (files->fd >= 0 && piece.length > 0) {
        ssize_t n = write(files->fd, piece.bytes, piece.length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            genode_file_abandon(files);
            return;
        }
        files->bytes += (uint64_t)n;
        piece.bytes += n;
        piece.length -= (size_t)n;
    }
}

void genode_file_end(struct genode_files *files)
{
    char path[64];

    if (files->fd < 0)
        return;
    path_of(files->name, path);
    if (fchmod(files->fd, 0755) != 0 || rename(PART, path) != 0) {
        genode_file_abandon(files);
        return;
    }
    close(files->fd);
    files->fd = -1;
    files->room_bytes -= files->bytes < files->room_bytes ? files->bytes : files->room_bytes;
    files->n++;
}

void genode_file_abandon(struct genode_files *files)
{
    if (files->fd < 0)
        return;
    close(files->fd);
    files->fd = -1;
    unlink(PART);
}
