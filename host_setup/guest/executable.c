#define _GNU_SOURCE
#include "executable.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CODE_NOT_FOUND 127
#define CODE_NOT_STARTED 126

/* In the child: what is the task loader's alone ends here. */
static void be_ordinary(int nowhere)
{
    const struct sigaction ordinary = {.sa_handler = SIG_DFL};
    sigset_t none;
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(nowhere, fd);
    /* When memory runs out, it shall go rather than what reports it. */
    if (score >= 0 && write(score, "1000", 4) < 0)
        errno = 0;
    close(score);
    sigemptyset(&none);
    sigaction(SIGPIPE, &ordinary, NULL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child, which borrows the parent's memory until it executes or ends: system calls only. */
static _Noreturn void become(struct shared_task *task, int64_t job, const struct task *spec,
                             char *const argv[], int nowhere)
{
    static char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    be_ordinary(nowhere);
    if (spec->mem_limit_bytes != NOT_GIVEN) {
        struct rlimit limit = {(rlim_t)spec->mem_limit_bytes, (rlim_t)spec->mem_limit_bytes};
        if (setrlimit(RLIMIT_AS, &limit) != 0)
            _exit(CODE_NOT_STARTED);
    }
    /* Publish the group, then look: the supervisor kills in the opposite order, so one of the two sees the
     * other. */
    atomic_store(&task->group, getpid());
    if (atomic_load(&task->word) != job_word(job, PHASE_RUNNING))
        _exit(0);
    execve(argv[0], argv, environment);
    _exit(errno == ENOENT || errno == ENOTDIR ? CODE_NOT_FOUND : CODE_NOT_STARTED);
}

pid_t executable_run(struct shared_task *task, int64_t job, const struct task *spec, int nowhere)
{
    char *argv[spec->workload.n_arguments + 1];
    const char *argument = spec->workload.arguments;
    siginfo_t end;

    for (int64_t i = 0; i < spec->workload.n_arguments; i++) {
        argv[i] = (char *)argument;
        argument += strlen(argument) + 1;
    }
    argv[spec->workload.n_arguments] = NULL;
    pid_t pid = vfork();
    if (pid == 0)
        become(task, job, spec, argv, nowhere);
    while (pid > 0 && waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT) != 0 && errno == EINTR)
        ;
    return pid;
}

static int64_t ns_of_timeval(struct timeval time)
{
    return time.tv_sec * INT64_C(1000000000) + time.tv_usec * INT64_C(1000);
}

struct executable_end executable_reap(struct shared_task *task, pid_t pid)
{
    struct rusage usage;
    int status;

    if (pid < 0)
        return (struct executable_end){CODE_NOT_STARTED, UNKNOWN, UNKNOWN};
    kill(-pid, SIGKILL); /* what it left behind in its group; the number is ours until the wait below */
    while (wait4(pid, &status, 0, &usage) < 0 && errno == EINTR)
        ;
    atomic_store(&task->group, 0);
    return (struct executable_end){
        .code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
        .exec_ns = ns_of_timeval(usage.ru_utime) + ns_of_timeval(usage.ru_stime),
        .preemptions = usage.ru_nivcsw,
    };
}
