#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "job_memory.h"
#include "orphans.h"
#include "report.h"
#include "sched.h"
#include "self_check.h"

/* The set starts on a multiple of this, so that a start that is a little late on a busy host is the same
 * start. */
#define START_GRID_NS (20 * NS_PER_MS)

#define ORPHANS_TIMEOUT_MS 2000

int run_open(struct run *run, const struct means *means, const struct report_form *form)
{
    run->form = form;
    run->shared.means = means;
    run->rt_runtime_us = means->rt_runtime_us;
    int error = pool_open(&run->pool, &run->shared);
    return error ? error : supervisor_open(&run->supervisor, &run->shared);
}

/* Sets the bandwidth cap, where it matters and is not so already. */
static bool cap_bandwidth(struct run *run, int runtime_us, struct fault *fault)
{
    bool matters = taskset_has(run->shared.set, task_is_realtime);
    int error = matters && run->rt_runtime_us != runtime_us ? rt_runtime_write(runtime_us) : 0;

    if (error)
        return fault_set(fault, "throttling", "sched_rt_runtime_us cannot become %d: %s", runtime_us,
                         strerror(error));
    if (matters)
        run->rt_runtime_us = runtime_us;
    return true;
}

static bool ready_threads(struct run *run, struct fault *fault)
{
    const struct taskset *set = run->shared.set;
    bool overloaded = self_check_is_needed(set);

    for (int i = 0; i < set->head.n_tasks; i++) {
        struct worker *worker = &run->pool.workers[i];
        const char *what = "thread";
        int error = worker_ready(worker, set->tasks[i].policy);
        if (!error && overloaded && task_is_deadline(&set->tasks[i])) {
            what = "timer";
            error = self_check_start(&run->checks[i], worker->thread, (pid_t)worker->tid);
            run->has_check[i] = !error;
        }
        if (error)
            return fault_set(fault, "set_up", "task %d: no %s: %s", i, what, strerror(error));
        run->shared.tasks[i].tid = (pid_t)worker->tid;
    }
    return true;
}

static void call_tasks(struct run *run)
{
    for (int i = 0; i < run->shared.set->head.n_tasks; i++)
        if (run->admitted[i])
            worker_call(&run->pool.workers[i]);
}

/* In the order of the tasks, because each admission takes from what the next may get. */
static void admit_tasks(struct run *run)
{
    for (int i = 0; i < run->shared.set->head.n_tasks; i++) {
        struct shared_task *shared = &run->shared.tasks[i];
        const struct task *task = &run->shared.set->tasks[i];
        int error = task->cpus != 0 ? sched_set_cpus(shared->tid, task->cpus) : 0;
        if (!error)
            error = sched_set_task(shared->tid, task);
        if (!error) {
            run->admitted[i] = true;
            run->shared.n_at_work++;
            continue;
        }
        run->refused_errno[i] = error;
        const struct record record = record_empty(i, 0, UNKNOWN, JOB_NOT_SCHEDULED);
        ring_push(&shared->ring, &record);
        shared->word = job_word(0, PHASE_OVER);
    }
}

/* Sets the start instant, and has the supervisor watch, who has to know it. */
static bool start_clock(struct run *run, struct fault *fault)
{
    struct shared *shared = &run->shared;
    int64_t earliest_ns = monotonic_ns() + shared->set->head.start_delay_ns;

    shared->t0_ns = (earliest_ns + START_GRID_NS - 1) / START_GRID_NS * START_GRID_NS;
    shared->stop_at_ns = shared->t0_ns + shared->set->head.stop_ns;
    for (int i = 0; i < shared->set->head.n_tasks; i++)
        if (run->refused_errno[i] != 0)
            shared->tasks[i].over_ns = shared->t0_ns;
    int error = supervisor_begin(&run->supervisor);
    if (error)
        return fault_set(fault, "set_up", "the supervisor does not get its priority: %s", strerror(error));
    return true;
}

/* A task that has left SCHED_DEADLINE counts, for admission, until what it used has become its share: for a
 * period at most. No set shall meet what is left of another. */
static void await_bandwidth(const struct run *run)
{
    const struct timespec until = timespec_of_ns(run->bandwidth_free_ns);

    if (taskset_has(run->shared.set, task_is_deadline))
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
}

static bool prepare(struct run *run, struct fault *fault)
{
    const struct taskset *set = run->shared.set;
    bool capped = set->head.admission_control && taskset_has(set, task_is_deadline);

    await_bandwidth(run);
    job_memory_get(&run->shared);
    if (!cap_bandwidth(run, capped ? RT_RUNTIME_DEFAULT_US : RT_RUNTIME_OFF_US, fault) ||
        !ready_threads(run, fault))
        return false;
    admit_tasks(run);
    /* Once admitted, what the cap would still do is to take the supervisor's share from the tasks. */
    return cap_bandwidth(run, RT_RUNTIME_OFF_US, fault) && start_clock(run, fault);
}

/* Puts back what `prepare` did, as far as it came. The threads wait. Their policies are not worth the system
 * calls of taking them back. */
static void clear_up(struct run *run)
{
    const struct taskset *set = run->shared.set;
    int64_t now_ns = monotonic_ns();

    for (int i = 0; i < set->head.n_tasks; i++) {
        pid_t tid = run->shared.tasks[i].tid;
        if (run->has_check[i])
            self_check_stop(run->checks[i]);
        if (tid != 0 && set->tasks[i].cpus != 0)
            sched_set_cpus(tid, 0);
        if (run->admitted[i] && task_is_deadline(&set->tasks[i]) &&
            now_ns + set->tasks[i].dl_period_ns > run->bandwidth_free_ns)
            run->bandwidth_free_ns = now_ns + set->tasks[i].dl_period_ns;
    }
    job_memory_release(&run->shared);
    if (run->rt_runtime_us != run->shared.means->rt_runtime_us &&
        rt_runtime_write(run->shared.means->rt_runtime_us) == 0)
        run->rt_runtime_us = run->shared.means->rt_runtime_us;
}

bool run_start(struct run *run, const struct taskset *set, struct out *out, struct fault *fault)
{
    memset(run->refused_errno, 0, sizeof run->refused_errno);
    memset(run->admitted, 0, sizeof run->admitted);
    memset(run->has_check, 0, sizeof run->has_check);
    memset(run->announced, 0, sizeof run->announced);
    run->n_open = (int)set->head.n_tasks;
    run->n_records = 0;
    run->over_ns = 0;
    shared_begin(&run->shared, set);
    if (!prepare(run, fault)) {
        run->shared.stopped_ns = run->shared.t0_ns = 1; /* before any release */
        call_tasks(run);
        shared_await_tasks(&run->shared);
        clear_up(run);
        return false;
    }
    run->form->start(run, out);
    out_write_some(out);
    call_tasks(run);
    return true;
}

void run_stop(struct run *run) { supervisor_stop_set(&run->supervisor); }

bool run_report(struct run *run, struct out *out)
{
    bool any = false;
    bool stay = run->shared.means->segments != NULL; /* the records */

    for (int i = 0; i < run->shared.set->head.n_tasks; i++) {
        struct shared_task *task = &run->shared.tasks[i];
        bool over =
            word_phase(atomic_load(&task->word)) == PHASE_OVER; /* before the ring: nothing comes after it */
        const struct record *record;
        while (!stay && !run->announced[i] && out_has_room(out) &&
               (record = ring_peek(&task->ring)) != NULL) {
            run->form->job(run, record, out);
            ring_drop(&task->ring);
            run->n_records++;
            any = true;
        }
        if (!over || run->announced[i] || (!stay && ring_peek(&task->ring) != NULL) || !out_has_room(out))
            continue;
        run->n_records += stay ? atomic_load(&task->ring.written) : 0;
        run->form->task_done(run, i, out);
        run->over_ns = task->over_ns > run->over_ns ? task->over_ns : run->over_ns;
        run->announced[i] = true;
        run->n_open--;
        any = true;
    }
    return any;
}

/* What executables left behind outside their process groups. */
static void end_orphans(void)
{
    for (int ms = 0; orphans_collect() && ms < ORPHANS_TIMEOUT_MS; ms++) {
        orphans_kill(getpid());
        usleep(1000);
    }
}

void run_end(struct run *run, struct out *out)
{
    if (run->n_open > 0)
        run_stop(run);
    shared_await_tasks(&run->shared);
    supervisor_end(&run->supervisor);
    if (taskset_has(run->shared.set, task_is_executable))
        end_orphans();
    clear_up(run);
    if (out)
        run->form->end(run, out);
}
