#define _GNU_SOURCE
#include "task.h"

#include <errno.h>
#include <sched.h>
#include <sys/resource.h>

#include "clock.h"
#include "executable.h"
#include "futex.h"
#include "interrupt.h"
#include "sched.h"
#include "self_check.h"
#include "workloads.h"

struct task_state {
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

static int64_t now_ns(const struct task_state *state) { return monotonic_ns() - state->shared->t0_ns; }

static int64_t involuntary_switches(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

static void push(struct task_state *state, const struct record *record)
{
    struct ring *ring = &state->own->ring;

    uint32_t waiting = ring_push(ring, record);
    if (waiting == ring->hurry_at)
        atomic_store(&state->shared->reporter_waits, 1); /* it may be pausing between two batches */
    shared_wake_reporter(state->shared);
}

static void push_empty(struct task_state *state, int64_t job, enum exit_type exit, int64_t finish_ns)
{
    struct record record = record_empty(state->idx, job, release_ns(state->task, job), exit);

    record.finish_ns = finish_ns;
    push(state, &record);
}

/* Whether the job is released within the set. */
static bool exists(const struct task_state *state, int64_t job)
{
    return job < state->task->n_jobs && release_ns(state->task, job) < state->stop_ns;
}

/* The release of `job` came while the one before ran, and is skipped for that; returns the job after. */
static int64_t skip(struct task_state *state, int64_t job)
{
    if (exists(state, job))
        push_empty(state, job, JOB_SKIPPED, UNKNOWN);
    return job + 1;
}

/* Records the jobs from `job` on that were given up, as of `now`, before they ever got the CPU; returns the
 * next one to start. */
static int64_t give_up_waiting(struct task_state *state, int64_t job, int64_t now)
{
    const struct task *task = state->task;

    while (exists(state, job)) {
        int64_t limit_ns = overrun_limit_ns(task, state->overrun, job);
        if (now < limit_ns || limit_ns >= state->stop_ns)
            break;
        if (state->overrun == OVERRUN_ABORT_AT_DEADLINE) {
            push_empty(state, job++, JOB_EXIT_DEADLINE, limit_ns);
            continue;
        }
        push_empty(state, job, JOB_EXIT_PERIOD, limit_ns);
        job = skip(state, job + 1);
    }
    return job;
}

/* The set was stopped: every job released by then has a line. */
static void give_up_released(struct task_state *state, int64_t job, int64_t stopped_ns)
{
    job = give_up_waiting(state, job, stopped_ns);
    for (; exists(state, job) && release_ns(state->task, job) < stopped_ns; job++)
        push_empty(state, job, JOB_EXIT_EXTERNAL, stopped_ns);
}

static void sleep_until_release(void *argument)
{
    struct task_state *state = argument;
    struct timespec release = timespec_of_ns(state->release_abs_ns);

    /* A stop that came before the kill signal could jump here shows in `stopped_ns`; a later one jumps. */
    while (atomic_load(&state->shared->stopped_ns) == 0 &&
           clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &release, NULL) == EINTR)
        ;
}

static void work_built_in(void *argument)
{
    struct task_state *state = argument;

    state->code = workload_run(&state->task->workload, &state->context);
}

static enum exit_type exit_of_code(int code)
{
    return code == 0 ? JOB_EXIT : code == CODE_OUT_OF_QUOTA ? JOB_OUT_OF_QUOTA : JOB_EXIT_ERROR;
}

/* Leaves RUNNING, or learns that the supervisor did; then its kill has arrived for good when this returns. */
static enum phase leave_running(struct task_state *state, int64_t job, bool built_in, bool landed)
{
    struct shared_task *own = state->own;
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

static void record_end(struct task_state *state, struct record *record, enum phase phase)
{
    if (phase == PHASE_ENDED) {
        record->exit = (int16_t)exit_of_code(state->code);
        record->code = state->code;
        return;
    }
    record->exit = (int16_t)exit_of_kill(phase);
    record->finish_ns = (phase == PHASE_KILLED_EXTERNAL ? atomic_load(&state->shared->stopped_ns)
                                                        : atomic_load(&state->own->killed_ns)) -
                        state->shared->t0_ns;
}

static void announce_start(struct task_state *state, int64_t job, int64_t start_abs_ns)
{
    atomic_store(&state->own->start_ns, start_abs_ns);
    atomic_store(&state->own->word, job_word(job, PHASE_RUNNING));
    if (atomic_load(&state->own->wants_start)) {
        atomic_store(&state->own->wants_start, 0);
        futex_ring(&state->shared->supervisor_bell);
    }
}

/* The CPU time of a job. `spin`, over at `finish_ns` of CLOCK_MONOTONIC, knows it unless its end was
 * disturbed: to ask would take 1,000 instructions, at which an interrupt may come that is not the job's. An
 * interrupt that comes when the job has less left than that interrupt takes is not counted either, though
 * the kernel charges it to the thread. */
static int64_t used_ns(const struct task_state *state, bool finished, int64_t finish_ns)
{
    int64_t wanted_ns = state->task->workload.number;
    int64_t off_ns = finish_ns - state->context.spun_ns;
    bool spun = finished && state->task->workload.kind == WORKLOAD_SPIN;

    if (spun && off_ns > -SPIN_DISTURBED_NS && off_ns < SPIN_DISTURBED_NS)
        return wanted_ns + off_ns;
    int64_t cpu_ns =
        meter_used_ns(&state->context.meter, &state->shared->means->meter_costs, state->task->policy);
    bool struck =
        spun && cpu_ns > wanted_ns && cpu_ns - wanted_ns < spin_interrupt_ns(&state->shared->means->spin);
    return struck ? wanted_ns : cpu_ns;
}

static enum phase run_built_in(struct task_state *state, struct record *record)
{
    record->cpu_first = (int16_t)sched_getcpu();
    state->context.meter = meter_start();
    state->context.spun_ns = 0;
    bool finished = interrupt_run(work_built_in, state);
    int64_t finish_ns = monotonic_ns();
    record->finish_ns = finish_ns - state->shared->t0_ns;
    enum phase phase = leave_running(state, record->job, true, !finished);
    record->exec_ns = used_ns(state, finished, finish_ns);
    record->cpu_last = (int16_t)sched_getcpu();
    record->migrations = record->cpu_first != record->cpu_last;
    record->preemptions = (int32_t)(involuntary_switches() - state->preemptions);
    return phase;
}

static enum phase run_executable(struct task_state *state, struct record *record)
{
    pid_t pid = executable_run(state->own, record->job, state->task, state->shared->means->nowhere);
    record->finish_ns = now_ns(state);
    enum phase phase = leave_running(state, record->job, false, false);
    struct executable_end end = executable_reap(state->own, pid);
    state->code = end.code;
    record->exec_ns = end.exec_ns;
    record->preemptions = (int32_t)end.preemptions;
    return phase;
}

/* Runs the job from its start to its record; returns the next one. */
static int64_t run_job(struct task_state *state, int64_t job, int64_t start_abs_ns)
{
    struct record record = record_empty(state->idx, job, release_ns(state->task, job), JOB_EXIT);

    record.start_ns = start_abs_ns - state->shared->t0_ns;
    announce_start(state, job, start_abs_ns);
    enum phase phase = state->task->workload.kind == WORKLOAD_EXECUTABLE ? run_executable(state, &record)
                                                                         : run_built_in(state, &record);
    record_end(state, &record, phase);
    push(state, &record);
    job = phase == PHASE_KILLED_PERIOD ? skip(state, job + 1) : job + 1;
    atomic_store(&state->own->word, job_word(job, PHASE_PENDING));
    state->preemptions = involuntary_switches();
    return job;
}

static void run_jobs(struct task_state *state)
{
    const int64_t t0_ns = state->shared->t0_ns;
    int64_t job = 0;

    state->preemptions = involuntary_switches();
    while (exists(state, job)) {
        int64_t stopped_ns = atomic_load(&state->shared->stopped_ns);
        if (stopped_ns != 0) {
            give_up_released(state, job, stopped_ns - t0_ns);
            return;
        }
        state->release_abs_ns = t0_ns + release_ns(state->task, job);
        if (monotonic_ns() < state->release_abs_ns && !interrupt_run(sleep_until_release, state))
            continue;
        int64_t start_abs_ns = monotonic_ns();
        if (start_abs_ns < state->release_abs_ns)
            continue;
        if (start_abs_ns >= state->shared->stop_at_ns) {
            int64_t none = 0; /* the supervisor is late: no job starts after the set's end for that */
            atomic_compare_exchange_strong(&state->shared->stopped_ns, &none, state->shared->stop_at_ns);
            continue;
        }
        int64_t next = give_up_waiting(state, job, start_abs_ns - t0_ns);
        if (next == job)
            next = run_job(state, job, start_abs_ns);
        else
            atomic_store(&state->own->word, job_word(next, PHASE_PENDING));
        job = next;
    }
}

/* A deadline holds bandwidth, and has to be left by the thread itself: the kernel (6.1) never takes back what
 * a sleeping one has. The last task to be over wakes who waits for that. */
static void be_over(const struct task_state *state)
{
    struct shared *shared = state->shared;
    struct shared_task *own = state->own;

    own->over_ns = monotonic_ns();
    atomic_store(&own->word, job_word(0, PHASE_OVER));
    shared_wake_reporter(shared);
    if (task_is_deadline(state->task))
        sched_set_other(0);
    if (atomic_fetch_sub(&shared->n_at_work, 1) == 1)
        futex_wake_all(&shared->n_at_work);
}

void task_run(struct shared *shared, int idx)
{
    const struct taskset *set = shared->set;
    struct shared_task *own = &shared->tasks[idx];
    struct task_state state = {
        .idx = idx,
        .shared = shared,
        .own = own,
        .task = &set->tasks[idx],
        .overrun = (enum overrun)set->head.overrun,
        .stop_ns = set->head.stop_ns,
        .context = {.spin = &shared->means->spin, .nowhere = shared->means->nowhere, .memory = own->memory},
    };

    interrupt_forget();
    self_check_watch(shared, idx);
    run_jobs(&state);
    be_over(&state);
}
