/*
 * The stem: a program that is loaded and linked but stopped before its main(), and from which every further process of
 * it is forked. Two thirds of the CPU time that QEMU takes until it answers are the dynamic linking of 50 libraries,
 * the same each time.
 *
 * A shared object for LD_PRELOAD. It takes the place of glibc's __libc_start_main(): by then the libraries are linked
 * and their constructors have run, while the program's own have not (one of QEMU's starts a thread, which no fork
 * would take along). The environment variable RTFLEET_STEM holds the numbers of two descriptors: the channel to the
 * runner, and the file of this shared object. Without the variable a program starts as ever; with RTFLEET_TURNS, the
 * number of the latter descriptor, it does too, but takes turns (turns.c).
 *
 * The stem is its processes' parent and collects them. The alternative, clone(CLONE_PARENT), would make them the
 * runner's own children, but only fork() leaves glibc with the right thread id, locks and lists in the child.
 *
 * Nothing outlives its parent: the kernel kills the stem with the runner's thread that started it, and the stem's
 * processes with the stem; it may, for a stem keeps the runner's user, whatever its processes become. Processes of one
 * stem share its address layout and stack canary: they are guests of one runner, which trusts no guest with more than
 * another. They have its environment and working folder, too.
 *
 * The other side, and what the messages mean: runner/qemu/stem.py.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/prctl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "turns.h"

#define VARIABLE "RTFLEET_STEM"
#define TURNS_VARIABLE "RTFLEET_TURNS"

enum { PROTOCOL = 3, DESCRIPTORS_MAX = 16, ARGUMENTS_MAX = 1024, TEXT_MAX = 1 << 16 };
enum { READY = 1, STARTED = 2, REFUSED = 3, ENDED = 4 };

/* One message: start a process. Descriptors go along, as many as there are numbers. */
struct request {
    int32_t cpu; /* the only one that it may use; -1: whatever the stem may use */
    uint32_t n_descriptors;
    int32_t uid, gid; /* as whom it runs; -1: as the stem */
    int32_t group;    /* the only other group that it has; -1: none */
    uint32_t n_open;  /* how many files it can have open */
    uint64_t file_bytes, memory_bytes; /* how long a file, and how much memory of its own; UINT64_MAX: whatever the stem may have */
    int32_t numbers[DESCRIPTORS_MAX]; /* by which it sees them; ascending, above 1 */
    char text[TEXT_MAX];              /* its arguments, each with its NUL */
};

/* One message: READY (value: PROTOCOL), STARTED (a pidfd goes along), REFUSED (value: errno), ENDED (value: wait status). */
struct answer {
    int32_t kind, pid, value;
};

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

typedef int start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                       void (*fini)(void), void (*rtld_fini)(void), void *stack_end);

static struct request request;
static size_t text_size;
static int received[DESCRIPTORS_MAX];
static uint32_t n_received;
static char *arguments[ARGUMENTS_MAX + 1];

static void must(bool done, const char *what)
{
    if (!done) {
        dprintf(STDERR_FILENO, "%s: %s: %s\n", VARIABLE, what, strerror(errno));
        _exit(126);
    }
}

static void tell(int channel, struct answer answer, int fd)
{
    union control control = {0};
    struct iovec body = {&answer, sizeof answer};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1};

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof fd);
        *CMSG_FIRSTHDR(&message) =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &fd, sizeof fd);
    }
    must(sendmsg(channel, &message, MSG_NOSIGNAL) >= 0, "telling the runner");
}

/* How many entries a folder of /proc/self has. */
static int n_entries(const char *path)
{
    DIR *folder = opendir(path);
    int n = 0;

    must(folder != NULL, path);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n - 2; /* . and .. */
}

/* What the libraries' constructors made must survive a fork, and what a child closes must not be theirs. */
static void check_untouched(void)
{
    errno = EBUSY;
    must(n_entries("/proc/self/task") == 1, "a library has started a thread");
    /* stdin, stdout, stderr, the channel, and the one that n_entries() reads. */
    must(n_entries("/proc/self/fd") == 5, "a library has opened a file");
}

/* Take the next request; 0, or the errno that it is refused with. Does not return when the runner has gone. */
static int receive(int channel)
{
    union control control;
    struct iovec body = {&request, sizeof request};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (size == 0)
        _exit(0);
    must(size > 0, "hearing the runner");
    n_received = 0;
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        n_received = (uint32_t)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(received, CMSG_DATA(header), n_received * sizeof(int));
    }
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return E2BIG;
    if ((size_t)size <= offsetof(struct request, text))
        return EBADMSG;
    text_size = (size_t)size - offsetof(struct request, text);
    return 0;
}

/* Make `arguments` of the request; 0, or the errno that it is refused with. */
static int check(int *n_arguments)
{
    int32_t least = STDERR_FILENO;

    if (request.cpu < -1 || request.cpu >= CPU_SETSIZE || request.n_descriptors != n_received)
        return EINVAL;
    for (uint32_t i = 0; i < n_received; i++) {
        if (request.numbers[i] < least || request.numbers[i] >= INT_MAX - DESCRIPTORS_MAX)
            return EINVAL;
        least = request.numbers[i] + 1;
    }
    if (request.text[text_size - 1] != '\0')
        return EINVAL;
    *n_arguments = 0;
    for (char *next = request.text; next < request.text + text_size; next += strlen(next) + 1) {
        if (*n_arguments == ARGUMENTS_MAX)
            return E2BIG;
        arguments[(*n_arguments)++] = next;
    }
    arguments[*n_arguments] = NULL;
    return 0;
}

/* Have the received descriptors under the numbers asked for, and no others but stdin and stdout. */
static void take_descriptors(void)
{
    unsigned int first_unwanted = STDERR_FILENO;

    /* Out of the way of all numbers first. */
    for (uint32_t i = 0; i < n_received; i++) {
        received[i] = fcntl(received[i], F_DUPFD, request.numbers[n_received - 1] + 1);
        must(received[i] >= 0, "moving a descriptor");
    }
    for (uint32_t i = 0; i < n_received; i++) {
        unsigned int number = (unsigned int)request.numbers[i];

        must(dup2(received[i], (int)number) >= 0, "placing a descriptor");
        if (first_unwanted < number)
            must(syscall(SYS_close_range, first_unwanted, number - 1, 0) == 0, "closing descriptors");
        first_unwanted = number + 1;
    }
    must(syscall(SYS_close_range, first_unwanted, UINT_MAX, 0) == 0, "closing descriptors");
}

/* Have `ps` show this process's own arguments. A kernel that does not do that shows the stem's. */
static void show_arguments(void)
{
    /* Of /proc/self/stat: the fields from the 26th on, proc(5). */
    unsigned long code, code_end, stack, data, data_end, heap, environment, environment_end;
    FILE *file = fopen("/proc/self/stat", "re");

    if (file == NULL)
        return;
    if (fscanf(file,
               "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %*u %*u %*d"
               " %*u %lu %lu %lu %*u %*u %*u %*u %*u %*u %*u %*u %*u %*d %*d %*u %*u %*u %*u %*d %lu %lu %lu %*u %*u"
               " %lu %lu",
               &code, &code_end, &stack, &data, &data_end, &heap, &environment, &environment_end) == 8) {
        struct prctl_mm_map map = {.start_code = code,
                                   .end_code = code_end,
                                   .start_data = data,
                                   .end_data = data_end,
                                   .start_brk = heap,
                                   .brk = (unsigned long)sbrk(0),
                                   .start_stack = stack,
                                   .arg_start = (unsigned long)request.text,
                                   .arg_end = (unsigned long)request.text + text_size,
                                   .env_start = environment,
                                   .env_end = environment_end,
                                   .exe_fd = UINT_MAX};
        prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
    }
    fclose(file);
}

/* Lower a limit; one that is lower already stays. */
static void limit(__rlimit_resource_t what, uint64_t most)
{
    struct rlimit now;

    must(getrlimit(what, &now) == 0, "reading a limit");
    if (most < now.rlim_max)
        now.rlim_max = most;
    if (now.rlim_max < now.rlim_cur)
        now.rlim_cur = now.rlim_max;
    must(setrlimit(what, &now) == 0, "lowering a limit");
}

/* Take away what the process has no need of. As become() in runner/qemu/become.py. */
static void confine(void)
{
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, request.n_open);
    limit(RLIMIT_FSIZE, request.file_bytes);
    limit(RLIMIT_DATA, request.memory_bytes);
    signal(SIGXFSZ, SIG_IGN); /* writing too much is an error, not the end */
    if (request.uid >= 0) {
        gid_t group = (gid_t)request.group, gid = (gid_t)request.gid;
        uid_t uid = (uid_t)request.uid;

        must(setgroups(request.group >= 0, &group) == 0, "leaving the groups");
        must(setresgid(gid, gid, gid) == 0, "changing the group");
        must(setresuid(uid, uid, uid) == 0, "changing the user");
        /* That user's other processes, which emulate other guests, may not look into it. */
        must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0, "becoming opaque");
    }
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "giving up new rights");
}

/* Die with the stem; the kernel forgets that when the user changes. */
static void tie_to(pid_t stem)
{
    must(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "asking for the death signal");
    if (getppid() != stem) /* it died before that was in force */
        _exit(126);
}

/* In the child: all that lies between a fork and main(). */
static void become_process(pid_t stem, const sigset_t *signals)
{
    tie_to(stem);
    take_descriptors(); /* from here on there is a stderr to complain to */
    must(setsid() >= 0, "leaving the session");
    if (request.cpu >= 0) {
        cpu_set_t cpus;

        CPU_ZERO(&cpus);
        CPU_SET((size_t)request.cpu, &cpus);
        must(sched_setaffinity(0, sizeof cpus, &cpus) == 0, "moving to the CPU asked for");
    }
    show_arguments();
    confine();
    tie_to(stem);
    must(sigprocmask(SIG_SETMASK, signals, NULL) == 0, "unblocking signals");
}

/* In the stem: tell of a process that was forked, or why it was not. */
static void tell_of(int channel, pid_t pid, int error)
{
    int pidfd = -1;

    if (error == 0 && (pidfd = (int)syscall(SYS_pidfd_open, pid, 0)) < 0) {
        error = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    tell(channel, (struct answer){error == 0 ? STARTED : REFUSED, pid, error}, pidfd);
    if (pidfd >= 0)
        close(pidfd);
    for (uint32_t i = 0; i < n_received; i++)
        close(received[i]);
}

/* Serve until the runner goes. Returns in each child, with the number of its `arguments`. */
static int serve(int channel)
{
    const pid_t stem = getpid();
    sigset_t child_ended, before;
    struct signalfd_siginfo ignored;
    int status;
    pid_t pid;

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a runner that is dead by now has closed the channel */
    check_untouched();
    signal(SIGCHLD, SIG_DFL); /* if it was ignored, nobody would learn how a process ended */
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    must(sigprocmask(SIG_BLOCK, &child_ended, &before) == 0, "blocking a signal");
    struct pollfd sources[] = {{.fd = channel, .events = POLLIN},
                               {.fd = signalfd(-1, &child_ended, SFD_CLOEXEC), .events = POLLIN}};
    must(sources[1].fd >= 0, "watching for the end of processes");
    tell(channel, (struct answer){READY, stem, PROTOCOL}, -1);
    for (;;) {
        must(poll(sources, 2, -1) > 0, "waiting"); /* nothing interrupts it: no signal has a handler */
        if (sources[1].revents) {
            must(read(sources[1].fd, &ignored, sizeof ignored) > 0, "taking a signal");
            while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                tell(channel, (struct answer){ENDED, pid, status}, -1);
        }
        if (sources[0].revents) {
            int n_arguments = 0, error = receive(channel);

            pid = 0;
            if (error == 0)
                error = check(&n_arguments);
            if (error == 0 && (pid = fork()) == 0) {
                become_process(stem, &before);
                return n_arguments;
            }
            tell_of(channel, pid, pid < 0 ? errno : error);
        }
    }
}

/* The program's processes shall not be stems, and whatever else the user has preloaded stays so. */
static void clean_environment(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    const char *others = preloaded == NULL ? NULL : strchr(preloaded, ':');

    unsetenv(VARIABLE);
    unsetenv(TURNS_VARIABLE);
    if (others == NULL)
        unsetenv("LD_PRELOAD");
    else
        setenv("LD_PRELOAD", others + 1, 1);
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
    start_main *start = (start_main *)dlsym(RTLD_NEXT, "__libc_start_main");
    const char *wanted = getenv(VARIABLE);
    int channel, own_file;

    if (wanted != NULL && sscanf(wanted, "%d,%d", &channel, &own_file) == 2) {
        clean_environment();
        close(own_file);
        argc = serve(channel);
        argv = arguments;
        take_turns(argc, argv);
    } else if ((wanted = getenv(TURNS_VARIABLE)) != NULL && take_turns(argc, argv)) {
        clean_environment(); /* what takes no turns may be a script that becomes a QEMU */
        close(atoi(wanted));
    }
    return start(main, argc, argv, init, fini, rtld_fini, stack_end);
}
