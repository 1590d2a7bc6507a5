/*
 * The crash injector: a shared object for LD_PRELOAD that counts what a process does to the files under one folder, and
 * ends the process at the n-th of these operations, at once, as SIGKILL or a power loss would.
 *
 * An operation is whatever changes files: open (with O_CREAT or O_TRUNC), write (all its forms, sendfile and
 * copy_file_range too), sync (fsync, fdatasync), rename, unlink (rmdir too), truncate (fallocate too), mkdir, link
 * (symlink too). The process dies just *before* the n-th, or, mode `torn`, in the middle of it: half of what was to be
 * written is there. The `power` modes undo, before the process dies, what a disk may lose that was not synced:
 *
 *     kill         nothing is undone: the kernel lives on, and with it all that it was told
 *     torn         as kill, but only writes count, and the last one is done by half
 *     power        all bytes since a file's last fsync, and all names since their folder's last fsync, are undone
 *     power-names  the bytes are undone, but the names (creations, renames, removals) stay, as some file systems do it
 *     power-some   each sector is undone or not, by lot, and the names from some point on, as in a journal
 *
 * SQLite's -shm files are memory of its processes and lost in all `power` modes. Bytes that are written through a
 * mapping are not seen; nothing else that the runner keeps is written so. Nor are what the C library writes through its
 * own FILEs, and other processes' writes.
 *
 * The environment variable RTFLEET_CRASH="AT MODE SEED REPORT FOLDER" arms it; or crash_arm(), in a process that was
 * forked from one that has it loaded. AT 0 only counts. At the end a line goes to the descriptor REPORT:
 * "crash AT KIND PATH", or "end COUNT KIND=COUNT …". Only the process that was armed counts: not its children, which do
 * not even find the variables.
 *
 * One lock is held over each operation and its record, so that what is undone is what has happened.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define VARIABLE "RTFLEET_CRASH"

/* Sectors of which a disk keeps either all or nothing. */
enum { SECTOR = 512 };
/* Our own descriptors are out of the way of the program's, which might expect the lowest ones. */
enum { FIRST_DESCRIPTOR = 400 };

enum kind { OPEN, WRITE, SYNC, RENAME, UNLINK, TRUNCATE, MKDIR, LINK, KINDS };
static const char *const kind_names[KINDS] = {"open", "write", "sync", "rename", "unlink", "truncate", "mkdir", "link"};

enum mode { KILL, TORN, POWER, POWER_NAMES, POWER_SOME, MODES };
static const char *const mode_names[MODES] = {"kill", "torn", "power", "power-names", "power-some"};

/* A file that was changed; open until the end, for to close any descriptor of it drops the process's locks on it. */
struct file {
    dev_t device;
    ino_t number;
    int fd;
    struct file *next;
};

enum change { BYTES, CREATED, RENAMED, REPLACED, REMOVED, FOLDER_MADE, FOLDER_REMOVED, DURABLE };

/* How to undo one change. The newest is first. */
struct undo {
    enum change change;
    struct file *file; /* BYTES: what `bytes` were at `offset` of a file of `size` bytes, of which `length` were written */
    off_t offset, size;
    size_t length, n_bytes;
    char *bytes;
    char *path, *origin; /* the others; RENAMED: where it was before; REPLACED (by the rename that is noted next), REMOVED: where it is kept */
    struct undo *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool armed;
static pid_t armed_pid;
static enum mode mode;
static long at, n_seen, n_by_kind[KINDS];
static int report_fd;
static uint64_t lot;
static char folder[PATH_MAX], graveyard[PATH_MAX + 16];
static size_t folder_length;
static unsigned n_buried;
static struct file *files;
static struct undo *undos;

static void must(bool done, const char *what)
{
    if (!done) {
        dprintf(STDERR_FILENO, "%s: %s: %s\n", VARIABLE, what, strerror(errno));
        _exit(126);
    }
}

/* The next number of a sequence that the seed decides (xorshift). */
static unsigned draw(void)
{
    lot ^= lot << 13;
    lot ^= lot >> 7;
    lot ^= lot << 17;
    return (unsigned)(lot >> 32);
}

/* Where things are */

static bool inside(const char *path)
{
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == '\0');
}

static bool counts(void)
{
    return armed && syscall(SYS_getpid) == armed_pid;
}

static bool path_of_descriptor(int fd, char path[PATH_MAX])
{
    char link[32];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return false;
    path[length] = '\0';
    return true;
}

/* The absolute path of an entry whose folder exists, if that is under ours. The entry itself need not exist. */
static bool find_path(int folder_fd, const char *name, char path[PATH_MAX])
{
    char whole[PATH_MAX], parent[PATH_MAX];
    const char *last;
    char *end;
    int error = errno;
    bool found = false;

    if (name == NULL || name[0] == '\0' || strlen(name) >= PATH_MAX)
        return false;
    if (name[0] == '/')
        snprintf(whole, sizeof whole, "%s", name);
    else if (folder_fd == AT_FDCWD)
        snprintf(whole, sizeof whole, "./%s", name);
    else if (path_of_descriptor(folder_fd, parent))
        snprintf(whole, sizeof whole, "%.*s/%s", PATH_MAX - 2, parent, name);
    else
        return false;
    for (end = whole + strlen(whole); end > whole + 1 && end[-1] == '/'; end--)
        end[-1] = '\0';
    end = strrchr(whole, '/');
    last = end + 1;
    *end = '\0';
    if (realpath(end == whole ? "/" : whole, parent) != NULL)
        found = snprintf(path, PATH_MAX, "%s/%s", parent, last) < PATH_MAX && inside(path);
    errno = error;
    return found;
}

static bool find_file(int fd, char path[PATH_MAX], struct stat *status)
{
    int error = errno;
    bool found = fstat(fd, status) == 0 && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)) &&
                 status->st_nlink > 0 && path_of_descriptor(fd, path) && inside(path);

    errno = error;
    return found;
}

static bool exists(const char *path)
{
    struct stat status;
    int error = errno;
    bool found = lstat(path, &status) == 0;

    errno = error;
    return found;
}

/* What could be undone */

/* SQLite's index of its log is memory that processes share by the name of a file. */
static bool is_shared_memory(const char *path)
{
    size_t length = strlen(path);

    return length > 4 && strcmp(path + length - 4, "-shm") == 0;
}

static bool undoes(void)
{
    return mode >= POWER;
}

/* It is gone as a whole; to cut it while other threads have it mapped would end them with SIGBUS. */
static bool undoes_bytes_of(const char *path)
{
    return undoes() && !is_shared_memory(path);
}

static struct undo *note(enum change change, const char *path, const char *origin)
{
    struct undo *undo = calloc(1, sizeof *undo);

    must(undo != NULL, "noting a change");
    undo->change = change;
    undo->path = path == NULL ? NULL : strdup(path);
    undo->origin = origin == NULL ? NULL : strdup(origin);
    undo->next = undos;
    undos = undo;
    return undo;
}

static struct file *known_file(const struct stat *status)
{
    struct file *file = files;

    while (file != NULL && (file->device != status->st_dev || file->number != status->st_ino))
        file = file->next;
    return file;
}

static struct file *keep_file(const char *name, const struct stat *status)
{
    struct file *file = known_file(status);

    if (file != NULL)
        return file;
    file = calloc(1, sizeof *file);
    must(file != NULL, "noting a file");
    file->fd = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
    must(file->fd >= 0, "opening a changed file");
    file->device = status->st_dev;
    file->number = status->st_ino;
    file->next = files;
    return files = file;
}

/* `length` bytes from `offset` on are about to change or to go. */
static void note_bytes(const char *name, const struct stat *status, off_t offset, size_t length)
{
    struct undo *undo = note(BYTES, NULL, NULL);

    undo->file = keep_file(name, status);
    undo->offset = offset;
    undo->size = status->st_size;
    undo->length = length;
    if (offset < status->st_size) {
        size_t present = (size_t)(status->st_size - offset);

        undo->n_bytes = length < present ? length : present;
        undo->bytes = malloc(undo->n_bytes + 1);
        must(undo->bytes != NULL, "noting bytes");
        must(syscall(SYS_pread64, undo->file->fd, undo->bytes, undo->n_bytes, offset) == (ssize_t)undo->n_bytes,
             "reading what is about to change");
    }
}

static void note_bytes_of(int fd, const struct stat *status, off_t offset, size_t length)
{
    char link[32];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    note_bytes(link, status, offset, length);
}

/* Keep a file that loses its name; writes where. */
static void bury(const char *path, char grave[PATH_MAX])
{
    must(snprintf(grave, PATH_MAX, "%s/%d-%u", graveyard, armed_pid, n_buried++) < PATH_MAX, "the name of a grave");
    must(syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, grave, 0) == 0, "keeping a removed file");
}

/* Everything about this file's bytes is on the disk. */
static void bytes_are_durable(const struct file *file)
{
    for (struct undo *undo = undos; undo != NULL; undo = undo->next)
        if (undo->change == BYTES && undo->file == file)
            undo->change = DURABLE;
}

/* All names in this folder are on the disk. */
static void names_are_durable(const char *path)
{
    size_t length = strlen(path);

    for (struct undo *undo = undos; undo != NULL; undo = undo->next)
        if (undo->path != NULL && strncmp(undo->path, path, length) == 0 && undo->path[length] == '/' &&
            strchr(undo->path + length + 1, '/') == NULL)
            undo->change = DURABLE;
}

static void restore_bytes(int fd, const char *bytes, size_t length, off_t offset)
{
    must(syscall(SYS_pwrite64, fd, bytes, length, offset) == (ssize_t)length, "restoring bytes");
}

/* Each sector of what was written, and the size, by lot. */
static void restore_some(const struct undo *undo)
{
    static const char zeros[SECTOR];
    off_t end = undo->offset + (off_t)undo->length;

    for (off_t from = undo->offset, to; from < end; from = to) {
        to = (from / SECTOR + 1) * SECTOR < end ? (from / SECTOR + 1) * SECTOR : end;
        if (draw() % 2)
            continue;
        /* Of a file that became longer, with a sector that never came: zeros. */
        off_t old_end = undo->offset + (off_t)undo->n_bytes;
        off_t middle = from > old_end ? from : to < old_end ? to : old_end;
        restore_bytes(undo->file->fd, undo->bytes + (from - undo->offset), (size_t)(middle - from), from);
        restore_bytes(undo->file->fd, zeros, (size_t)(to - middle), middle);
    }
    if (draw() % 2)
        must(syscall(SYS_ftruncate, undo->file->fd, undo->size) == 0, "restoring a size");
}

static void restore_name(const struct undo *undo)
{
    /* What is not there any more was removed by another change, whose removal is durable: then nothing is to be done. */
    switch (undo->change) {
    case CREATED:
        syscall(SYS_unlinkat, AT_FDCWD, undo->path, 0);
        break;
    case FOLDER_MADE:
        syscall(SYS_unlinkat, AT_FDCWD, undo->path, AT_REMOVEDIR);
        break;
    case FOLDER_REMOVED:
        syscall(SYS_mkdirat, AT_FDCWD, undo->path, 0777);
        break;
    case RENAMED:
        syscall(SYS_renameat2, AT_FDCWD, undo->path, AT_FDCWD, undo->origin, 0);
        break;
    case REPLACED:
    case REMOVED:
        syscall(SYS_linkat, AT_FDCWD, undo->origin, AT_FDCWD, undo->path, 0);
        break;
    default:
        break;
    }
}

static void lose_power(void)
{
    unsigned n_names = 0, n_lost;
    bool lost = false;

    for (const struct undo *undo = undos; undo != NULL; undo = undo->next) {
        n_names += undo->change != BYTES && undo->change != REPLACED && undo->change != DURABLE;
        if (undo->path != NULL && is_shared_memory(undo->path))
            syscall(SYS_unlinkat, AT_FDCWD, undo->path, 0);
    }
    /* A journal of names is on the disk up to some point. */
    n_lost = mode == POWER ? n_names : mode == POWER_SOME ? draw() % (n_names + 1) : 0;
    for (const struct undo *undo = undos; undo != NULL; undo = undo->next) {
        if (undo->change == DURABLE)
            continue;
        if (undo->change == REPLACED) {
            /* A rename is whole or not at all: with the new file's name goes the old one's end. */
            if (lost)
                restore_name(undo);
        } else if (undo->change != BYTES) {
            lost = n_lost > 0;
            if (lost) {
                n_lost--;
                restore_name(undo);
            }
        } else if (mode == POWER_SOME) {
            restore_some(undo);
        } else {
            restore_bytes(undo->file->fd, undo->bytes, undo->n_bytes, undo->offset);
            must(syscall(SYS_ftruncate, undo->file->fd, undo->size) == 0, "restoring a size");
        }
    }
}

/* The end */

static void die(void)
{
    for (;;)
        syscall(SYS_kill, armed_pid, SIGKILL);
}

/* Take the lock and count one operation; returns whether it is the one to die at. */
static bool begin(enum kind kind)
{
    pthread_mutex_lock(&lock);
    if (mode == TORN && kind != WRITE)
        return false;
    n_by_kind[kind]++;
    return ++n_seen == at;
}

static void done(void)
{
    int error = errno;

    pthread_mutex_unlock(&lock);
    errno = error;
}

static void crash(enum kind kind, const char *path)
{
    if (undoes())
        lose_power();
    dprintf(report_fd, "crash %ld %s %s\n", n_seen, kind_names[kind], path + folder_length);
    die();
}

static void before(enum kind kind, const char *path)
{
    if (begin(kind))
        crash(kind, path);
}

/* For who has it loaded. */

__attribute__((visibility("default"))) void crash_arm(long at_operation, const char *mode_name, long seed, int report,
                                                      const char *under)
{
    int found = 0;

    while (found < MODES && strcmp(mode_names[found], mode_name) != 0)
        found++;
    errno = EINVAL;
    must(found < MODES, mode_name);
    must(realpath(under, folder) != NULL, under);
    folder_length = strlen(folder);
    mode = (enum mode)found;
    at = at_operation;
    lot = (uint64_t)seed * 2654435761u + 88172645463325252u;
    for (int i = 0; i < 8; i++)
        draw();
    report_fd = fcntl(report, F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR);
    must(report_fd >= 0, "the descriptor to report to");
    snprintf(graveyard, sizeof graveyard, "%s.graveyard", folder);
    if (undoes())
        must(syscall(SYS_mkdirat, AT_FDCWD, graveyard, 0700) == 0 || errno == EEXIST, graveyard);
    n_buried = 0;
    armed_pid = (pid_t)syscall(SYS_getpid);
    armed = true;
}

/* The process is at its end, alive: say what was counted. With `power_lost`, only for the process to have its power cut. */
__attribute__((visibility("default"))) void crash_end(bool power_lost)
{
    if (!counts())
        return;
    pthread_mutex_lock(&lock);
    armed = false;
    dprintf(report_fd, "end %ld", n_seen);
    for (int kind = 0; kind < KINDS; kind++)
        dprintf(report_fd, " %s=%ld", kind_names[kind], n_by_kind[kind]);
    dprintf(report_fd, "\n");
    if (power_lost && undoes())
        lose_power();
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void read_environment(void)
{
    char *given = getenv(VARIABLE), mode_name[16];
    long at_operation, seed;
    int report, length = 0;

    if (given == NULL)
        return;
    errno = EINVAL;
    must(sscanf(given, "%ld %15s %ld %d %n", &at_operation, mode_name, &seed, &report, &length) == 4 && length > 0,
         given);
    crash_arm(at_operation, mode_name, seed, report, given + length);
    unsetenv(VARIABLE);
    unsetenv("LD_PRELOAD");
}

__attribute__((destructor)) static void at_exit(void)
{
    crash_end(false);
}

/* What the program calls instead of the C library. Each does the same, through the kernel. */

static int open_file(int folder_fd, const char *name, int flags, mode_t permissions)
{
    char path[PATH_MAX];
    struct stat status;
    bool new;
    int fd;

    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !counts() ||
        !find_path(folder_fd, name, path))
        return (int)syscall(SYS_openat, folder_fd, name, flags, permissions);
    before(OPEN, path);
    new = !exists(path);
    if (undoes_bytes_of(path) && (flags & O_TRUNC) && stat(path, &status) == 0 && S_ISREG(status.st_mode))
        note_bytes(path, &status, 0, (size_t)status.st_size);
    fd = (int)syscall(SYS_openat, folder_fd, name, flags, permissions);
    if (undoes() && fd >= 0 && (new || is_shared_memory(path)))
        note(new ? CREATED : DURABLE, path, NULL);
    done();
    return fd;
}

static size_t total(const struct iovec *parts, int n)
{
    size_t length = 0;

    for (int i = 0; i < n; i++)
        length += parts[i].iov_len;
    return length;
}

/* `offset` -1: where the descriptor stands. */
static ssize_t put(int fd, const struct iovec *parts, int n, off_t offset, int flags)
{
    return syscall(SYS_pwritev2, fd, parts, n, offset, offset < 0 ? -1L : 0L, flags);
}

/* Half of it, and then the end. */
static void tear(int fd, const struct iovec *parts, int n, off_t offset, const char *path)
{
    size_t left = total(parts, n) / 2;

    for (int i = 0; i < n && left > 0; i++) {
        struct iovec part = parts[i];
        ssize_t length;

        if (part.iov_len > left)
            part.iov_len = left;
        length = put(fd, &part, 1, offset, 0);
        must(length == (ssize_t)part.iov_len, "writing half");
        left -= part.iov_len;
        if (offset >= 0)
            offset += length;
    }
    crash(WRITE, path);
}

/* Take the lock, and prepare for `length` bytes being written. */
static bool before_write(int fd, off_t offset, size_t length, const char *path, const struct stat *status)
{
    bool last = begin(WRITE);
    int flags = fcntl(fd, F_GETFL);

    if (last && mode != TORN)
        crash(WRITE, path);
    if (!last && undoes_bytes_of(path)) {
        struct stat present = *status;

        fstat(fd, &present); /* before the lock was ours another thread may have written */
        if (flags & O_APPEND)
            offset = present.st_size;
        else if (offset < 0)
            offset = lseek(fd, 0, SEEK_CUR);
        note_bytes_of(fd, &present, offset, length);
    }
    return last;
}

static ssize_t write_parts(int fd, const struct iovec *parts, int n, off_t offset, int flags)
{
    char path[PATH_MAX];
    struct stat status;
    ssize_t length;

    if (!counts() || !find_file(fd, path, &status))
        return put(fd, parts, n, offset, flags);
    if (before_write(fd, offset, total(parts, n), path, &status))
        tear(fd, parts, n, offset, path);
    length = put(fd, parts, n, offset, flags);
    done();
    return length;
}

static ssize_t write_bytes(int fd, const void *bytes, size_t length, off_t offset)
{
    struct iovec part = {(void *)bytes, length};

    return write_parts(fd, &part, 1, offset, 0);
}

static int sync_file(int fd, long number)
{
    char path[PATH_MAX];
    struct stat status;
    int result;

    if (!counts() || !find_file(fd, path, &status))
        return (int)syscall(number, fd);
    before(SYNC, path);
    result = (int)syscall(number, fd);
    if (result == 0 && undoes()) {
        if (S_ISDIR(status.st_mode))
            names_are_durable(path);
        else
            bytes_are_durable(known_file(&status));
    }
    done();
    return result;
}

static int rename_entry(int old_fd, const char *old, int new_fd, const char *new, unsigned flags)
{
    char from[PATH_MAX], to[PATH_MAX], grave[PATH_MAX];
    bool leaves, arrives, replaces;
    int result;

    if (!counts())
        return (int)syscall(SYS_renameat2, old_fd, old, new_fd, new, flags);
    leaves = find_path(old_fd, old, from);
    arrives = find_path(new_fd, new, to);
    if (!leaves && !arrives)
        return (int)syscall(SYS_renameat2, old_fd, old, new_fd, new, flags);
    before(RENAME, arrives ? to : from);
    errno = EXDEV;
    must(!undoes() || (leaves && arrives && flags == 0), "a rename across the folder's edge");
    replaces = undoes() && exists(to);
    if (replaces)
        bury(to, grave);
    result = (int)syscall(SYS_renameat2, old_fd, old, new_fd, new, flags);
    if (result == 0 && undoes()) {
        if (replaces)
            note(REPLACED, to, grave);
        note(RENAMED, to, from);
    }
    done();
    return result;
}

static int unlink_entry(int folder_fd, const char *name, int flags)
{
    char path[PATH_MAX], grave[PATH_MAX];
    bool keep;
    int result;

    if (!counts() || !find_path(folder_fd, name, path) || !exists(path))
        return (int)syscall(SYS_unlinkat, folder_fd, name, flags);
    before(UNLINK, path);
    keep = undoes() && !(flags & AT_REMOVEDIR);
    if (keep)
        bury(path, grave);
    result = (int)syscall(SYS_unlinkat, folder_fd, name, flags);
    if (result == 0 && undoes())
        note(keep ? REMOVED : FOLDER_REMOVED, path, keep ? grave : NULL);
    done();
    return result;
}

static int cut_file(int fd, off_t size)
{
    char path[PATH_MAX];
    struct stat status;
    int result;

    if (!counts() || !find_file(fd, path, &status))
        return (int)syscall(SYS_ftruncate, fd, size);
    before(TRUNCATE, path);
    if (undoes_bytes_of(path) && fstat(fd, &status) == 0)
        note_bytes_of(fd, &status, size, size < status.st_size ? (size_t)(status.st_size - size) : 0);
    result = (int)syscall(SYS_ftruncate, fd, size);
    done();
    return result;
}

static int cut_named_file(const char *name, off_t size)
{
    char path[PATH_MAX];
    struct stat status;
    int result;

    if (!counts() || !find_path(AT_FDCWD, name, path) || stat(path, &status) != 0)
        return (int)syscall(SYS_truncate, name, size);
    before(TRUNCATE, path);
    if (undoes_bytes_of(path) && stat(path, &status) == 0)
        note_bytes(path, &status, size, size < status.st_size ? (size_t)(status.st_size - size) : 0);
    result = (int)syscall(SYS_truncate, name, size);
    done();
    return result;
}

static int allocate(int fd, int flags, off_t offset, off_t length)
{
    char path[PATH_MAX];
    struct stat status;
    int result;

    if (!counts() || !find_file(fd, path, &status))
        return (int)syscall(SYS_fallocate, fd, flags, offset, length);
    before(TRUNCATE, path);
    if (undoes_bytes_of(path) && fstat(fd, &status) == 0)
        note_bytes_of(fd, &status, offset, (size_t)length);
    result = (int)syscall(SYS_fallocate, fd, flags, offset, length);
    done();
    return result;
}

static int make_folder(int folder_fd, const char *name, mode_t permissions)
{
    char path[PATH_MAX];
    int result;

    if (!counts() || !find_path(folder_fd, name, path) || exists(path))
        return (int)syscall(SYS_mkdirat, folder_fd, name, permissions);
    before(MKDIR, path);
    result = (int)syscall(SYS_mkdirat, folder_fd, name, permissions);
    if (result == 0 && undoes())
        note(FOLDER_MADE, path, NULL);
    done();
    return result;
}

static int link_entry(long number, int old_fd, const char *old, int new_fd, const char *new, int flags)
{
    char path[PATH_MAX];
    bool within = counts() && find_path(new_fd, new, path);
    int result;

    if (within)
        before(LINK, path);
    result = (int)(number == SYS_symlinkat ? syscall(number, old, new_fd, new)
                                           : syscall(number, old_fd, old, new_fd, new, flags));
    if (within) {
        if (result == 0 && undoes())
            note(CREATED, path, NULL);
        done();
    }
    return result;
}

/* Bytes of one file into another, inside the kernel. */
static ssize_t copy_range(long number, int to, int from, off_t *from_offset, off_t *to_offset, size_t length,
                          unsigned flags)
{
    char path[PATH_MAX];
    struct stat status;
    bool within = counts() && find_file(to, path, &status);
    ssize_t result;

    if (within && before_write(to, to_offset != NULL ? *to_offset : -1, length, path, &status))
        crash(WRITE, path);
    result = number == SYS_sendfile ? syscall(number, to, from, from_offset, length)
                                    : syscall(number, from, from_offset, to, to_offset, length, flags);
    if (within)
        done();
    return result;
}

#define EXPORTED __attribute__((visibility("default")))
#define PERMISSIONS(flags, last)                                                                                         \
    __extension__({                                                                                                      \
        va_list more;                                                                                                    \
        mode_t given = 0;                                                                                                \
        va_start(more, last);                                                                                            \
        if ((flags) & (O_CREAT | O_TMPFILE))                                                                             \
            given = va_arg(more, mode_t);                                                                                \
        va_end(more);                                                                                                    \
        given;                                                                                                           \
    })

EXPORTED int open(const char *name, int flags, ...)
{
    return open_file(AT_FDCWD, name, flags, PERMISSIONS(flags, flags));
}

EXPORTED int openat(int fd, const char *name, int flags, ...)
{
    return open_file(fd, name, flags, PERMISSIONS(flags, flags));
}

EXPORTED int creat(const char *name, mode_t permissions)
{
    return open_file(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, permissions);
}

EXPORTED ssize_t write(int fd, const void *bytes, size_t length)
{
    return write_bytes(fd, bytes, length, -1);
}

EXPORTED ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    return write_bytes(fd, bytes, length, offset);
}

EXPORTED ssize_t writev(int fd, const struct iovec *parts, int n)
{
    return write_parts(fd, parts, n, -1, 0);
}

EXPORTED ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t offset)
{
    return write_parts(fd, parts, n, offset, 0);
}

EXPORTED ssize_t pwritev2(int fd, const struct iovec *parts, int n, off_t offset, int flags)
{
    return write_parts(fd, parts, n, offset, flags);
}

EXPORTED ssize_t sendfile(int to, int from, off_t *offset, size_t length)
{
    return copy_range(SYS_sendfile, to, from, offset, NULL, length, 0);
}

EXPORTED ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, unsigned flags)
{
    return copy_range(SYS_copy_file_range, to, from, from_offset, to_offset, length, flags);
}

EXPORTED int fsync(int fd)
{
    return sync_file(fd, SYS_fsync);
}

EXPORTED int fdatasync(int fd)
{
    return sync_file(fd, SYS_fdatasync);
}

EXPORTED int rename(const char *old, const char *new)
{
    return rename_entry(AT_FDCWD, old, AT_FDCWD, new, 0);
}

EXPORTED int renameat(int old_fd, const char *old, int new_fd, const char *new)
{
    return rename_entry(old_fd, old, new_fd, new, 0);
}

EXPORTED int renameat2(int old_fd, const char *old, int new_fd, const char *new, unsigned flags)
{
    return rename_entry(old_fd, old, new_fd, new, flags);
}

EXPORTED int unlink(const char *name)
{
    return unlink_entry(AT_FDCWD, name, 0);
}

EXPORTED int unlinkat(int fd, const char *name, int flags)
{
    return unlink_entry(fd, name, flags);
}

EXPORTED int rmdir(const char *name)
{
    return unlink_entry(AT_FDCWD, name, AT_REMOVEDIR);
}

EXPORTED int ftruncate(int fd, off_t size)
{
    return cut_file(fd, size);
}

EXPORTED int truncate(const char *name, off_t size)
{
    return cut_named_file(name, size);
}

EXPORTED int fallocate(int fd, int flags, off_t offset, off_t length)
{
    return allocate(fd, flags, offset, length);
}

EXPORTED int posix_fallocate(int fd, off_t offset, off_t length)
{
    return allocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

EXPORTED int mkdir(const char *name, mode_t permissions)
{
    return make_folder(AT_FDCWD, name, permissions);
}

EXPORTED int mkdirat(int fd, const char *name, mode_t permissions)
{
    return make_folder(fd, name, permissions);
}

EXPORTED int link(const char *old, const char *new)
{
    return link_entry(SYS_linkat, AT_FDCWD, old, AT_FDCWD, new, 0);
}

EXPORTED int linkat(int old_fd, const char *old, int new_fd, const char *new, int flags)
{
    return link_entry(SYS_linkat, old_fd, old, new_fd, new, flags);
}

EXPORTED int symlink(const char *content, const char *name)
{
    return link_entry(SYS_symlinkat, AT_FDCWD, content, AT_FDCWD, name, 0);
}

EXPORTED int symlinkat(const char *content, int fd, const char *name)
{
    return link_entry(SYS_symlinkat, AT_FDCWD, content, fd, name, 0);
}

/* On a 64-bit system the same calls under their older names. */
#define SAME(name) __attribute__((alias(#name), visibility("default")))
SAME(open) int open64(const char *, int, ...);
SAME(openat) int openat64(int, const char *, int, ...);
SAME(creat) int creat64(const char *, mode_t);
SAME(pwrite) ssize_t pwrite64(int, const void *, size_t, off_t);
SAME(pwritev) ssize_t pwritev64(int, const struct iovec *, int, off_t);
SAME(pwritev2) ssize_t pwritev64v2(int, const struct iovec *, int, off_t, int);
SAME(sendfile) ssize_t sendfile64(int, int, off_t *, size_t);
SAME(ftruncate) int ftruncate64(int, off_t);
SAME(truncate) int truncate64(const char *, off_t);
SAME(fallocate) int fallocate64(int, int, off_t, off_t);
SAME(posix_fallocate) int posix_fallocate64(int, off_t, off_t);
