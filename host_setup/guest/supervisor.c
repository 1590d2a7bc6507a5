#define _GNU_SOURCE
#include "supervisor.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "clock.h"
#include "futex.h"
#include "interrupt.h"
#include "limits.h"
#include "orphans.h"
#include "sched.h"

/* Nothing but SCHED_DEADLINE runs before SCHED_DEADLINE. The shortest period that the kernel takes
 * (sched_deadline_period_min_us is 100) makes its deadline the earliest, but for those that passed already:
 * `self_check.h` is about these. */
#define DEADLINE_NS (100 * NS_PER_US)

/* From the stop of a set until whatever has not ended by itself is killed outright. */
#define GRACE_NS (500 * NS_PER_MS)

/* What the end of a set may take, whatever it holds, until the watchdog does what the supervisor should
 * have. */
#define WATCHDOG_SLACK_NS (10 * NS_PER_S)

/* Ends the job, unless it has just ended by itself. */
static void kill_job(const struct supervisor *supervisor, int idx, int64_t job, enum phase phase,
                     int64_t now_ns)
{
    struct shared_task *task = &supervisor->shared->tasks[idx];

    if (!take_job(task, job, phase, now_ns))
        return;
    if (supervisor->shared->set->tasks[idx].workload.kind == WORKLOAD_EXECUTABLE) {
        pid_t group = atomic_load(&task->group);
        if (group != 0) /* else it is not there yet, and will see the word */
            kill(-group, SIGKILL);
        atomic_store(&task->kill_sent, (uint64_t)job + 1);
    } else {
        kill(supervisor->pids[idx], INTERRUPT_SIGNAL);
    }
}

/* Kills the task's job if its limit has come; returns the instant at which the task needs attention next.
 *
 * A limit of a job that has not started yet is only a lower bound. When it has passed, the task is asked to
 * ring the bell as its next job starts, so that nothing has to be looked at in between. */
static int64_t attend(const struct supervisor *supervisor, int idx, int64_t now_ns)
{
    struct shared_task *task = &supervisor->shared->tasks[idx];
    bool stopped = atomic_load(&supervisor->shared->stopped_ns) != 0;
    enum phase phase;

    for (;;) {
        uint64_t word = atomic_load(&task->word);
        int64_t job = word_job(word);
        int64_t limit = INT64_MAX;
        if (word_phase(word) == PHASE_OVER)
            return INT64_MAX;
        if (word_phase(word) == PHASE_RUNNING) {
            limit = limit_ns(supervisor->shared, idx, job, atomic_load(&task->start_ns), &phase);
            if (stopped)
                kill_job(supervisor, idx, job, PHASE_KILLED_EXTERNAL, now_ns);
            else if (limit <= now_ns)
                kill_job(supervisor, idx, job, phase, now_ns);
            else if (atomic_load(&task->word) == word)
                return limit;
            continue; /* it has moved on: look where it is now */
        }
        if (word_phase(word) == PHASE_PENDING && !stopped) {
            int64_t release =
                supervisor->shared->t0_ns + release_ns(&supervisor->shared->set->tasks[idx], job);
            limit = limit_ns(supervisor->shared, idx, job, release, &phase);
            if (limit > now_ns)
                return limit;
        }
        atomic_store(&task->wants_start, 1);
        if (atomic_load(&task->word) == word)
            return INT64_MAX;
    }
}

/* Every task leaves what it does: a running job is killed in `attend`, the others are woken from their sleep.
 */
static void stop_set(struct supervisor *supervisor, int64_t stopped_ns)
{
    atomic_store(&supervisor->shared->stopped_ns, stopped_ns);
    for (int i = 0; i < supervisor->shared->set->head.n_tasks; i++) {
        uint64_t word = atomic_load(&supervisor->shared->tasks[i].word);
        if (supervisor->pids[i] == 0 || word_phase(word) == PHASE_OVER)
            continue;
        /* A task whose SCHED_DEADLINE budget is used up could not run before its next period, seconds away
         * perhaps. */
        if (supervisor->shared->set->tasks[i].policy == POLICY_DEADLINE)
            sched_set_fifo(supervisor->pids[i], MAX_PRIORITY);
        if (word_phase(word) == PHASE_PENDING)
            kill(supervisor->pids[i], INTERRUPT_SIGNAL);
    }
}

static void kill_processes(const struct supervisor *supervisor)
{
    orphans_kill(); /* what an executable left behind may be what keeps the tasks from the CPU */
    for (int i = 0; i < supervisor->shared->set->head.n_tasks; i++)
        if (supervisor->pids[i] != 0)
            kill(supervisor->pids[i], SIGKILL); /* a running executable goes with its parent */
}

/* Has the watchdog wait for the end of the set, or as long as it can; returns when to do it again. */
static int64_t watch(const struct supervisor *supervisor, int64_t now_ns)
{
    int64_t left_ns = supervisor->shared->stop_at_ns + WATCHDOG_SLACK_NS - now_ns;

    if (!supervisor->watchdog)
        return INT64_MAX;
    watchdog_arm(supervisor->watchdog, left_ns);
    return left_ns <= WATCHDOG_MAX_NS ? INT64_MAX : now_ns + WATCHDOG_MAX_NS / 2;
}

static void supervise(struct supervisor *supervisor, int64_t watch_ns)
{
    struct shared *shared = supervisor->shared;
    const int64_t stop_ns = shared->stop_at_ns;
    int64_t next_ns = stop_ns;
    int64_t grace_ns = INT64_MAX;

    for (;;) {
        uint32_t seen = atomic_load(&shared->supervisor_bell);
        if (atomic_load(&supervisor->leave))
            return;
        int64_t now_ns = monotonic_ns();
        if (now_ns >= watch_ns)
            watch_ns = watch(supervisor, now_ns);
        if (grace_ns == INT64_MAX && (atomic_load(&supervisor->stop_asked) || now_ns >= stop_ns)) {
            stop_set(supervisor, now_ns < stop_ns ? now_ns : stop_ns);
            grace_ns = now_ns + GRACE_NS;
        }
        if (now_ns >= grace_ns)
            kill_processes(supervisor);
        next_ns = grace_ns == INT64_MAX ? stop_ns : now_ns < grace_ns ? grace_ns : INT64_MAX;
        for (int i = 0; i < supervisor->shared->set->head.n_tasks; i++) {
            int64_t due_ns = attend(supervisor, i, now_ns);
            next_ns = due_ns < next_ns ? due_ns : next_ns;
        }
        next_ns = watch_ns < next_ns ? watch_ns : next_ns;
        futex_wait_until(&shared->supervisor_bell, seen, next_ns);
    }
}

static void *thread_main(void *argument)
{
    struct supervisor *supervisor = argument;
    int error = taskset_has(supervisor->shared->set, task_is_deadline)
                    ? sched_set_deadline(0, DEADLINE_NS, DEADLINE_NS, DEADLINE_NS)
                    : sched_set_fifo(0, SUPERVISOR_PRIORITY);

    /* Above tasks of SCHED_OTHER it is only more exact with its priority; above others it must have it. */
    if (error && !taskset_has(supervisor->shared->set, task_is_realtime))
        error = 0;
    int64_t watch_ns = error ? 0 : watch(supervisor, monotonic_ns()); /* before any task may start */
    atomic_store(&supervisor->started, error ? -error : 1);
    futex_ring(&supervisor->shared->ready_bell);
    if (!error)
        supervise(supervisor, watch_ns);
    return NULL;
}

int supervisor_start(struct supervisor *supervisor)
{
    _Atomic uint32_t *bell = &supervisor->shared->ready_bell;
    pthread_attr_t attributes;
    uint32_t seen = atomic_load(bell);

    pthread_attr_init(&attributes);
    /* Not the default of 8 MiB: memory is locked, so that all of it would be filled with zeros at once. */
    int error = pthread_attr_setstacksize(&attributes, (size_t)sysconf(_SC_THREAD_STACK_MIN));
    if (!error)
        error = pthread_create(&supervisor->thread, &attributes, thread_main, supervisor);
    pthread_attr_destroy(&attributes);
    if (error)
        return error;
    for (; atomic_load(&supervisor->started) == 0; seen = atomic_load(bell))
        futex_wait_until(bell, seen, INT64_MAX);
    if (atomic_load(&supervisor->started) < 0) {
        pthread_join(supervisor->thread, NULL);
        return -atomic_load(&supervisor->started);
    }
    return 0;
}

void supervisor_stop_set(struct supervisor *supervisor)
{
    atomic_store(&supervisor->stop_asked, true);
    futex_ring(&supervisor->shared->supervisor_bell);
}

void supervisor_join(struct supervisor *supervisor)
{
    atomic_store(&supervisor->leave, true);
    futex_ring(&supervisor->shared->supervisor_bell);
    pthread_join(supervisor->thread, NULL);
}
