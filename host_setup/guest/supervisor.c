#define _GNU_SOURCE
#include "supervisor.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "clock.h"
#include "futex.h"
#include "interrupt.h"
#include "limits.h"
#include "orphans.h"
#include "sched.h"
#include "threads.h"

/* Nothing but SCHED_DEADLINE runs before SCHED_DEADLINE. The shortest period that the kernel takes
 * (sched_deadline_period_min_us is 100) makes its deadline the earliest, but for those that passed already:
 * `self_check.h` is about these. */
#define DEADLINE_NS (100 * NS_PER_US)

/* From the stop of a set until what executables have started is killed, wherever it went, */
#define GRACE_NS (500 * NS_PER_MS)

/* and until a thread that has not come back from its task even so is given up, and with it everything. */
#define GIVE_UP_NS (5 * NS_PER_S)

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
        tgkill(getpid(), task->tid, INTERRUPT_SIGNAL);
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

/* Every task leaves what it does: a running job is killed, the others are woken from their sleep. */
static void stop_set(struct supervisor *supervisor, int64_t stopped_ns, int64_t now_ns)
{
    atomic_store(&supervisor->shared->stopped_ns, stopped_ns);
    for (int i = 0; i < supervisor->shared->set->head.n_tasks; i++) {
        const struct shared_task *task = &supervisor->shared->tasks[i];
        uint64_t word = atomic_load(&task->word);
        if (word_phase(word) == PHASE_OVER)
            continue;
        if (word_phase(word) == PHASE_PENDING)
            tgkill(getpid(), task->tid, INTERRUPT_SIGNAL);
        else
            attend(supervisor, i, now_ns);
        /* A task whose SCHED_DEADLINE budget is used up could not run before its next period, seconds away
         * perhaps. It is awake by now: see `be_over` in task.c. */
        if (task_is_deadline(&supervisor->shared->set->tasks[i]))
            sched_set_fifo(task->tid, MAX_PRIORITY);
    }
}

/* Processes that left their group, or were left behind: they may be what keeps the tasks from the CPU, or
 * from their end. */
static void kill_processes(const struct supervisor *supervisor)
{
    orphans_kill(getpid());
    for (int i = 0; i < supervisor->shared->set->head.n_tasks; i++)
        if (supervisor->shared->tasks[i].tid != 0)
            orphans_kill(supervisor->shared->tasks[i].tid);
}

/* A thread cannot be ended from outside; a process can. */
static _Noreturn void give_up(void)
{
    dprintf(STDERR_FILENO, "taskloader: a task does not end\n");
    _exit(EXIT_GIVEN_UP);
}

/* Has the watchdog wait for the end of the set, or as long as it can; returns when to do it again. */
static int64_t watch(const struct supervisor *supervisor, int64_t now_ns)
{
    int64_t left_ns = supervisor->shared->stop_at_ns + WATCHDOG_SLACK_NS - now_ns;

    if (!supervisor->shared->means->watchdog)
        return INT64_MAX;
    watchdog_arm(supervisor->shared->means->watchdog, left_ns);
    return left_ns <= WATCHDOG_MAX_NS ? INT64_MAX : now_ns + WATCHDOG_MAX_NS / 2;
}

/* What is due at `now_ns` when the set's stop began at `stopping_ns`; returns when something will be. */
static int64_t stop_further(const struct supervisor *supervisor, int64_t stopping_ns, int64_t now_ns,
                            bool *killed)
{
    if (now_ns >= stopping_ns + GIVE_UP_NS && atomic_load(&supervisor->shared->n_at_work) != 0)
        give_up();
    if (now_ns < stopping_ns + GRACE_NS)
        return stopping_ns + GRACE_NS;
    if (!*killed && taskset_has(supervisor->shared->set, task_is_executable))
        kill_processes(supervisor);
    *killed = true;
    return now_ns < stopping_ns + GIVE_UP_NS ? stopping_ns + GIVE_UP_NS : INT64_MAX;
}

static void supervise(struct supervisor *supervisor)
{
    struct shared *shared = supervisor->shared;
    const int64_t stop_ns = shared->stop_at_ns;
    int64_t stopping_ns = 0;
    bool killed = false;

    for (;;) {
        uint32_t seen = atomic_load(&shared->supervisor_bell);
        if (!atomic_load(&supervisor->watch))
            return;
        int64_t now_ns = monotonic_ns();
        if (now_ns >= supervisor->watch_ns)
            supervisor->watch_ns = watch(supervisor, now_ns);
        if (stopping_ns == 0 && (atomic_load(&supervisor->stop_asked) || now_ns >= stop_ns)) {
            stop_set(supervisor, now_ns < stop_ns ? now_ns : stop_ns, now_ns);
            stopping_ns = now_ns;
        }
        int64_t next_ns = stopping_ns == 0 ? stop_ns : stop_further(supervisor, stopping_ns, now_ns, &killed);
        for (int i = 0; i < shared->set->head.n_tasks; i++) {
            int64_t due_ns = attend(supervisor, i, now_ns);
            next_ns = due_ns < next_ns ? due_ns : next_ns;
        }
        next_ns = supervisor->watch_ns < next_ns ? supervisor->watch_ns : next_ns;
        futex_wait_until(&shared->supervisor_bell, seen, next_ns);
    }
}

static _Noreturn void *thread_main(void *argument)
{
    struct supervisor *supervisor = argument;
    uint32_t seen = 0;

    prctl(PR_SET_NAME, "supervisor");
    thread_touch_stack();
    atomic_store(&supervisor->tid, (uint32_t)gettid());
    futex_wake_all(&supervisor->tid);
    for (;;) {
        /* Every set is counted: one without jobs may be over before this thread has run at all. */
        while (atomic_load(&supervisor->calls) == seen)
            futex_wait_until(&supervisor->calls, seen, INT64_MAX);
        seen++;
        supervise(supervisor);
        if (taskset_has(supervisor->shared->set, task_is_deadline))
            sched_set_fifo(0, SUPERVISOR_PRIORITY);
        atomic_store(&supervisor->left, 1);
        futex_wake_all(&supervisor->left);
    }
}

int supervisor_open(struct supervisor *supervisor, struct shared *shared)
{
    supervisor->shared = shared;
    int error = thread_start(&supervisor->thread, thread_main, supervisor);
    while (!error && atomic_load(&supervisor->tid) == 0)
        futex_wait_until(&supervisor->tid, 0, INT64_MAX);
    if (!error)
        supervisor->no_priority = sched_set_fifo((pid_t)supervisor->tid, SUPERVISOR_PRIORITY);
    return error;
}

int supervisor_begin(struct supervisor *supervisor)
{
    const struct taskset *set = supervisor->shared->set;
    int error = supervisor->no_priority;

    if (taskset_has(set, task_is_deadline))
        error = sched_set_deadline((pid_t)supervisor->tid, DEADLINE_NS, DEADLINE_NS, DEADLINE_NS);
    /* Above tasks of SCHED_OTHER it is only more exact with its priority; above others it must have it. */
    if (error && taskset_has(set, task_is_realtime))
        return error;
    supervisor->watch_ns = watch(supervisor, monotonic_ns()); /* before any task may start */
    atomic_store(&supervisor->stop_asked, false);
    atomic_store(&supervisor->left, 0);
    atomic_store(&supervisor->watch, true);
    futex_ring(&supervisor->calls);
    return 0;
}

void supervisor_stop_set(struct supervisor *supervisor)
{
    atomic_store(&supervisor->stop_asked, true);
    futex_ring(&supervisor->shared->supervisor_bell);
}

void supervisor_end(struct supervisor *supervisor)
{
    atomic_store(&supervisor->watch, false);
    futex_ring(&supervisor->shared->supervisor_bell);
    while (atomic_load(&supervisor->left) == 0)
        futex_wait_until(&supervisor->left, 0, INT64_MAX);
}
