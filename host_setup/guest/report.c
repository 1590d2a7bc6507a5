#define _GNU_SOURCE
#include "report.h"

#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "clock.h"

static const char *const EXIT_NAMES[] = {
    [JOB_EXIT] = "EXIT",
    [JOB_EXIT_CRITICAL] = "EXIT_CRITICAL",
    [JOB_EXIT_PERIOD] = "EXIT_PERIOD",
    [JOB_EXIT_DEADLINE] = "EXIT_DEADLINE",
    [JOB_EXIT_EXTERNAL] = "EXIT_EXTERNAL",
    [JOB_EXIT_ERROR] = "EXIT_ERROR",
    [JOB_OUT_OF_QUOTA] = "OUT_OF_QUOTA",
    [JOB_NOT_SCHEDULED] = "NOT_SCHEDULED",
    [JOB_SKIPPED] = "SKIPPED",
};

static void key_number(struct out *out, const char *key, int64_t number)
{
    out_text(out, key);
    out_number(out, number);
}

/* Whether the kernel says that it is a PREEMPT_RT one. */
static int kernel_is_realtime(void)
{
    char answer = '0';
    int fd = open("/sys/kernel/realtime", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        if (read(fd, &answer, 1) != 1)
            answer = '0';
        close(fd);
    }
    return answer == '1';
}

void report_hello(const struct spin *spin, struct out *out)
{
    struct utsname system = {.release = "unknown"};

    uname(&system);
    key_number(out, "hello version=", PROTOCOL_VERSION);
    key_number(out, " spin_ps=", spin->sled_ps);
    key_number(out, " cpus=", sysconf(_SC_NPROCESSORS_ONLN));
    out_text(out, " kernel=");
    out_encoded(out, system.release);
    key_number(out, " realtime=", kernel_is_realtime());
    out_text(out, "\n");
}

void report_fault(const struct fault *fault, struct out *out)
{
    out_text(out, "error code=");
    out_text(out, fault->code);
    out_text(out, " detail=");
    out_encoded(out, fault->detail);
    out_text(out, "\n");
}

void report_pong(const char *token, struct out *out)
{
    out_text(out, "pong token=");
    out_text(out, token);
    key_number(out, " t_ns=", monotonic_ns());
    out_text(out, "\n");
}

static void report_start(const struct run *run, struct out *out)
{
    out_text(out, "accepted id=");
    out_text(out, run->shared.set->head.id);
    out_text(out, "\n");
    for (int i = 0; i < run->shared.set->head.n_tasks; i++) {
        const char *name = strerrorname_np(run->refused_errno[i]);
        if (run->refused_errno[i] == 0)
            continue;
        key_number(out, "refused task=", i);
        key_number(out, " errno=", run->refused_errno[i]);
        out_text(out, " name=");
        out_text(out, name ? name : "unknown");
        out_text(out, "\n");
    }
    out_text(out, "start id=");
    out_text(out, run->shared.set->head.id);
    key_number(out, " t0_ns=", run->shared.t0_ns);
    out_text(out, "\n");
}

static void report_job(const struct run *run, const struct record *record, struct out *out)
{
    (void)run;
    key_number(out, "job ", record->task);
    out_known(out, record->job);
    out_known(out, record->release_ns);
    out_known(out, record->start_ns);
    out_known(out, record->finish_ns);
    out_known(out, record->exec_ns);
    out_text(out, " ");
    out_text(out, EXIT_NAMES[record->exit]);
    out_known(out, record->code);
    out_known(out, record->preemptions);
    out_known(out, record->migrations);
    out_known(out, record->cpu_first);
    out_known(out, record->cpu_last);
    out_text(out, "\n");
}

static void report_task_done(const struct run *run, int idx, struct out *out)
{
    key_number(out, "task_done task=", idx);
    key_number(out, " t_ns=", run->shared.tasks[idx].over_ns - run->shared.t0_ns);
    out_text(out, "\n");
}

/* Whether releases were cut off: by a stop, or because the set's end came before them. A stop that finds
 * every task over, though not yet reported, cuts nothing. */
static bool was_cut(const struct run *run)
{
    int64_t stopped_ns = atomic_load(&run->shared.stopped_ns);

    if (stopped_ns != 0 && stopped_ns <= run->over_ns)
        return true;
    for (int i = 0; i < run->shared.set->head.n_tasks; i++) {
        const struct task *task = &run->shared.set->tasks[i];
        if (run->refused_errno[i] == 0 && release_ns(task, task->n_jobs - 1) >= run->shared.set->head.stop_ns)
            return true;
    }
    return false;
}

static void report_end(const struct run *run, struct out *out)
{
    int64_t lost = 0;

    for (int i = 0; i < run->shared.set->head.n_tasks; i++)
        lost += atomic_load(&run->shared.tasks[i].ring.lost);
    out_text(out, "end id=");
    out_text(out, run->shared.set->head.id);
    key_number(out, " t_ns=", run->over_ns - run->shared.t0_ns);
    out_text(out, was_cut(run) ? " reason=stopped" : " reason=completed");
    key_number(out, " jobs=", run->n_records);
    key_number(out, " lost=", lost);
    out_text(out, "\n");
}

const struct report_form REPORT_LINES = {report_start, report_job, report_task_done, report_end};
