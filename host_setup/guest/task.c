#define _GNU_SOURCE
#include "task.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "clock.h"
#include "executable.h"
#include "futex.h"
#include "interrupt.h"
#include "sched.h"
#include "task_set_up.h"
#include "workloads.h"

struct task_process {
    int idx;
    struct shared *shared;
    struct shared_task *own;
    const struct task *task;
    enum overrun overrun;
    int64_t stop_ns; /* relative to t0, like every time in a record */
    struct job_context context;
    int64_t preemptions; /* involuntary switches before the job */
    int64_t release_abs_ns;
    int code;
};

static int64_t now_ns(const struct task_process *process) { return monotonic_ns() - process->shared->t0_ns; }

static int64_t involuntary_switches(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

static void push(struct task_process *process, const struct record *record)
{
    struct ring *ring = &process->own->ring;

    uint32_t waiting = ring_push(ring, record);
    if (waiting == ring->hurry_at)
        atomic_store(&process->shared->reporter_waits, 1); /* it may be pausing between two batches */
    shared_wake_reporter(process->shared);
}

static void push_empty(struct task_process *process, int64_t job, enum exit_type exit, int64_t finish_ns)
{
    struct record record = record_empty(process->idx, job, release_ns(process->task, job), exit);

    record.finish_ns = finish_ns;
    push(process, &record);
}

/* Whether the job is released within the set. */
static bool exists(const struct task_process *process, int64_t job)
{
    return job < process->task->n_jobs && release_ns(process->task, job) < process->stop_ns;
}

/* The release of `job` came while the one before ran, and is skipped for that; returns the job after. */
static int64_t skip(struct task_process *process, int64_t job)
{
    if (exists(process, job))
        push_empty(process, job, JOB_SKIPPED, UNKNOWN);
    return job + 1;
}

/* Records the jobs from `job` on that were given up, as of `now`, before they ever got the CPU; returns the
 * next one to start. */
static int64_t give_up_waiting(struct task_process *process, int64_t job, int64_t now)
{
    const struct task *task = process->task;

    while (exists(process, job)) {
        int64_t limit_ns = overrun_limit_ns(task, process->overrun, job);
        if (now < limit_ns || limit_ns >= process->stop_ns)
            break;
        if (process->overrun == OVERRUN_ABORT_AT_DEADLINE) {
            push_empty(process, job++, JOB_EXIT_DEADLINE, limit_ns);
            continue;
        }
        push_empty(process, job, JOB_EXIT_PERIOD, limit_ns);
        job = skip(process, job + 1);
    }
    return job;
}

/* The set was stopped: every job released by then has a line. */
static void give_up_released(struct task_process *process, int64_t job, int64_t stopped_ns)
{
    job = give_up_waiting(process, job, stopped_ns);
    for (; exists(process, job) && release_ns(process->task, job) < stopped_ns; job++)
        push_empty(process, job, JOB_EXIT_EXTERNAL, stopped_ns);
}

static void sleep_until_release(void *argument)
{
    struct task_process *process = argument;
    struct timespec release = timespec_of_ns(process->release_abs_ns);

    /* A stop that came before the kill signal could jump here shows in `stopped_ns`; a later one jumps. */
    while (atomic_load(&process->shared->stopped_ns) == 0 &&
           clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &release, NULL) == EINTR)
        ;
}

static void work_built_in(void *argument)
{
    struct task_process *process = argument;

    process->code = workload_run(&process->task->workload, &process->context);
}

static enum exit_type exit_of_code(int code)
{
    return code == 0 ? JOB_EXIT : code == CODE_OUT_OF_QUOTA ? JOB_OUT_OF_QUOTA : JOB_EXIT_ERROR;
}

/* Leaves RUNNING, or learns that the supervisor did; then its kill has arrived for good when this returns. */
static enum phase leave_running(struct task_process *process, int64_t job, bool built_in, bool landed)
{
    struct shared_task *own = process->own;
    uint64_t word = job_word(job, PHASE_RUNNING);

    if (atomic_compare_exchange_strong(&own->word, &word, job_word(job, PHASE_ENDED)))
        return landed ? PHASE_KILLED_EXTERNAL : PHASE_ENDED; /* a stop signals whatever the word says */
    /* The kill is under way. Another job must not start, nor the process group's number be given back, before
     * it is through. */
    if (built_in && !landed)
        interrupt_await();
    while (!built_in && atomic_load(&own->kill_sent) != (uint64_t)job + 1)
        sched_yield();
    return word_phase(word);
}

static void record_end(struct task_process *process, struct record *record, enum phase phase)
{
    if (phase == PHASE_ENDED) {
        record->exit = (int16_t)exit_of_code(process->code);
        record->code = process->code;
        return;
    }
    record->exit = (int16_t)exit_of_kill(phase);
    record->finish_ns = (phase == PHASE_KILLED_EXTERNAL ? atomic_load(&process->shared->stopped_ns)
                                                        : atomic_load(&process->own->killed_ns)) -
                        process->shared->t0_ns;
}

static void announce_start(struct task_process *process, int64_t job, int64_t start_abs_ns)
{
    atomic_store(&process->own->start_ns, start_abs_ns);
    atomic_store(&process->own->word, job_word(job, PHASE_RUNNING));
    if (atomic_load(&process->own->wants_start)) {
        atomic_store(&process->own->wants_start, 0);
        futex_ring(&process->shared->supervisor_bell);
    }
}

/* The CPU time of a job. `spin`, over at `finish_ns` of CLOCK_MONOTONIC, knows it unless its end was
 * disturbed: to ask would take 1,000 instructions, at which an interrupt may come that is not the job's. An
 * interrupt that comes when the job has less left than that interrupt takes is not counted either, though
 * the kernel charges it to the thread. */
static int64_t used_ns(const struct task_process *process, bool finished, int64_t finish_ns)
{
    int64_t wanted_ns = process->task->workload.number;
    int64_t off_ns = finish_ns - process->context.spun_ns;
    bool spun = finished && process->task->workload.kind == WORKLOAD_SPIN;

    if (spun && off_ns > -SPIN_DISTURBED_NS && off_ns < SPIN_DISTURBED_NS)
        return wanted_ns + off_ns;
    int64_t cpu_ns =
        meter_used_ns(&process->context.meter, &process->shared->meter_costs, process->task->policy);
    bool struck =
        spun && cpu_ns > wanted_ns && cpu_ns - wanted_ns < spin_interrupt_ns(&process->shared->spin);
    return struck ? wanted_ns : cpu_ns;
}

static enum phase run_built_in(struct task_process *process, struct record *record)
{
    record->cpu_first = (int16_t)sched_getcpu();
    process->context.meter = meter_start();
    process->context.spun_ns = 0;
    bool finished = interrupt_run(work_built_in, process);
    int64_t finish_ns = monotonic_ns();
    record->finish_ns = finish_ns - process->shared->t0_ns;
    enum phase phase = leave_running(process, record->job, true, !finished);
    record->exec_ns = used_ns(process, finished, finish_ns);
    record->cpu_last = (int16_t)sched_getcpu();
    record->migrations = record->cpu_first != record->cpu_last;
    record->preemptions = (int32_t)(involuntary_switches() - process->preemptions);
    job_context_release(&process->context);
    return phase;
}

static enum phase run_executable(struct task_process *process, struct record *record)
{
    pid_t pid = executable_run(process->own, record->job, process->task);
    record->finish_ns = now_ns(process);
    enum phase phase = leave_running(process, record->job, false, false);
    struct executable_end end = executable_reap(process->own, pid);
    process->code = end.code;
    record->exec_ns = end.exec_ns;
    record->preemptions = (int32_t)end.preemptions;
    return phase;
}

/* Runs the job from its start to its record; returns the next one. */
static int64_t run_job(struct task_process *process, int64_t job, int64_t start_abs_ns)
{
    struct record record = record_empty(process->idx, job, release_ns(process->task, job), JOB_EXIT);

    record.start_ns = start_abs_ns - process->shared->t0_ns;
    announce_start(process, job, start_abs_ns);
    enum phase phase = process->task->workload.kind == WORKLOAD_EXECUTABLE ? run_executable(process, &record)
                                                                           : run_built_in(process, &record);
    record_end(process, &record, phase);
    push(process, &record);
    job = phase == PHASE_KILLED_PERIOD ? skip(process, job + 1) : job + 1;
    atomic_store(&process->own->word, job_word(job, PHASE_PENDING));
    process->preemptions = involuntary_switches();
    return job;
}

static void run_jobs(struct task_process *process)
{
    const int64_t t0_ns = process->shared->t0_ns;
    int64_t job = 0;

    process->preemptions = involuntary_switches();
    while (exists(process, job)) {
        int64_t stopped_ns = atomic_load(&process->shared->stopped_ns);
        if (stopped_ns != 0) {
            give_up_released(process, job, stopped_ns - t0_ns);
            return;
        }
        process->release_abs_ns = t0_ns + release_ns(process->task, job);
        if (monotonic_ns() < process->release_abs_ns && !interrupt_run(sleep_until_release, process))
            continue;
        int64_t start_abs_ns = monotonic_ns();
        if (start_abs_ns < process->release_abs_ns)
            continue;
        if (start_abs_ns >= process->shared->stop_at_ns) {
            int64_t none = 0; /* the supervisor is late: no job starts after the set's end for that */
            atomic_compare_exchange_strong(&process->shared->stopped_ns, &none, process->shared->stop_at_ns);
            continue;
        }
        int64_t next = give_up_waiting(process, job, start_abs_ns - t0_ns);
        if (next == job)
            next = run_job(process, job, start_abs_ns);
        else
            atomic_store(&process->own->word, job_word(next, PHASE_PENDING));
        job = next;
    }
}

void task_main(struct shared *shared, int idx, pid_t parent)
{
    const struct taskset *set = shared->set;
    struct task_process process = {
        .idx = idx,
        .shared = shared,
        .own = &shared->tasks[idx],
        .task = &set->tasks[idx],
        .overrun = (enum overrun)set->head.overrun,
        .stop_ns = set->head.stop_ns,
        .context = {.spin = &shared->spin, .mem_limit_bytes = set->tasks[idx].mem_limit_bytes},
    };
    char name[16];

    snprintf(name, sizeof name, "task%d", idx);
    prctl(PR_SET_NAME, name);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(0);
    task_set_up(shared, idx);
    while (atomic_load(&shared->gate) == 0)
        futex_wait_until(&shared->gate, 0, INT64_MAX);
    run_jobs(&process);
    process.own->over_ns = monotonic_ns();
    atomic_store(&process.own->word, job_word(0, PHASE_OVER));
    /* Leaving a process costs hundreds of microseconds: not at the expense of tasks that still run. */
    sched_set_other(0);
    _exit(0);
}
