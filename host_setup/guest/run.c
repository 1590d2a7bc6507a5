#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "futex.h"
#include "orphans.h"
#include "report.h"
#include "sched.h"
#include "task.h"

/* The set starts on a multiple of this, so that a start that is a little late on a busy host is the same
 * start. */
#define START_GRID_NS (20 * NS_PER_MS)

#define ORPHANS_TIMEOUT_MS 2000

/* Sets the bandwidth cap, where it matters and is not so already. */
static bool cap_bandwidth(const struct taskset *set, int runtime_us, struct fault *fault)
{
    int now_us = 0;
    int error = taskset_has(set, task_is_realtime) ? rt_runtime_read(&now_us) : 0;

    if (!error && taskset_has(set, task_is_realtime) && now_us != runtime_us)
        error = rt_runtime_write(runtime_us);
    if (error)
        return fault_set(fault, "throttling", "sched_rt_runtime_us cannot become %d: %s", runtime_us,
                         strerror(error));
    return true;
}

static bool fork_tasks(struct run *run, struct fault *fault)
{
    struct shared *shared = run->shared; /* the child has no `run` any more */
    pid_t self = getpid();

    for (int i = 0; i < run->shared->set->head.n_tasks; i++) {
        pid_t pid = fork();
        if (pid == 0)
            task_main(shared, i, self);
        if (pid < 0)
            return fault_set(fault, "set_up", "task %d: fork: %s", i, strerror(errno));
        run->pids[i] = pid;
    }
    return true;
}

/* Waits until every process has set itself up. */
static bool await_tasks(struct run *run, struct fault *fault)
{
    struct shared *shared = run->shared;
    int64_t until_ns = monotonic_ns() + SET_UP_TIMEOUT_NS;

    for (int i = 0; i < run->shared->set->head.n_tasks; i++) {
        struct shared_task *task = &shared->tasks[i];
        for (;;) {
            uint32_t seen = atomic_load(&shared->ready_bell);
            siginfo_t end = {0};
            if (atomic_load(&task->set_up) != SET_UP_NOT_YET)
                break;
            waitid(P_PID, (id_t)run->pids[i], &end, WEXITED | WNOHANG | WNOWAIT);
            if (end.si_pid != 0 || monotonic_ns() >= until_ns)
                return fault_set(fault, "set_up", "task %d: its process %s", i,
                                 end.si_pid ? "died" : "is not ready in time");
            int64_t look_ns = monotonic_ns() + NS_PER_S; /* a process that died rings no bell */
            futex_wait_until(&shared->ready_bell, seen, look_ns < until_ns ? look_ns : until_ns);
        }
        if (atomic_load(&task->set_up) == SET_UP_FAILED)
            return fault_set(fault, "set_up", "task %d: %s: %s", i, task->set_up_step,
                             strerror(task->set_up_errno));
    }
    return true;
}

/* In the order of the tasks, because each admission takes from what the next may get. */
static void admit_tasks(struct run *run)
{
    for (int i = 0; i < run->shared->set->head.n_tasks; i++) {
        struct shared_task *task = &run->shared->tasks[i];
        int error = atomic_load(&task->set_up) == SET_UP_REFUSED
                        ? task->set_up_errno
                        : sched_set_task(run->pids[i], &run->shared->set->tasks[i]);
        if (error == 0)
            continue;
        run->refused_errno[i] = error;
        kill(run->pids[i], SIGKILL);
        waitpid(run->pids[i], NULL, 0);
        run->pids[i] = 0;
        run->exited[i] = true;
        const struct record record = record_empty(i, 0, UNKNOWN, JOB_NOT_SCHEDULED);
        ring_push(&task->ring, &record);
        atomic_store(&task->word, job_word(0, PHASE_OVER));
    }
}

/* Sets the start instant, and starts the supervisor that has to know it. */
static bool start_clock(struct run *run, struct watchdog *watchdog, struct fault *fault)
{
    int64_t earliest_ns = monotonic_ns() + run->shared->set->head.start_delay_ns;

    run->shared->t0_ns = (earliest_ns + START_GRID_NS - 1) / START_GRID_NS * START_GRID_NS;
    run->shared->stop_at_ns = run->shared->t0_ns + run->shared->set->head.stop_ns;
    for (int i = 0; i < run->shared->set->head.n_tasks; i++)
        if (run->pids[i] == 0)
            run->shared->tasks[i].over_ns = run->shared->t0_ns;
    run->supervisor = (struct supervisor){
        .shared = run->shared, .pids = run->pids, .watchdog = watchdog};
    int error = supervisor_start(&run->supervisor);
    if (error)
        return fault_set(fault, "set_up", "the supervisor does not get its priority: %s", strerror(error));
    return true;
}

static bool prepare(struct run *run, struct watchdog *watchdog, struct fault *fault)
{
    const struct taskset *set = run->shared->set;
    bool capped = set->head.admission_control && taskset_has(set, task_is_deadline);

    if (!cap_bandwidth(set, capped ? RT_RUNTIME_DEFAULT_US : RT_RUNTIME_OFF_US, fault))
        return false;
    if (!fork_tasks(run, fault) || !await_tasks(run, fault))
        return false;
    admit_tasks(run);
    /* Once admitted, what the cap would still do is to take the supervisor's share from the tasks. */
    return cap_bandwidth(set, RT_RUNTIME_OFF_US, fault) && start_clock(run, watchdog, fault);
}

bool run_start(struct run *run, const struct taskset *set, const struct means *means, struct out *out,
               struct fault *fault)
{
    *run = (struct run){.n_open = (int)set->head.n_tasks};
    if (rt_runtime_read(&run->rt_runtime_us) != 0)
        run->rt_runtime_us = RT_RUNTIME_DEFAULT_US;
    run->shared = shared_map(set, means);
    if (!run->shared)
        return fault_set(fault, "set_up", "no memory for the job records: %s", strerror(errno));
    if (!prepare(run, means->watchdog, fault)) {
        run_end(run, NULL);
        return false;
    }
    report_start(run, out);
    out_write_some(out);
    atomic_store(&run->shared->gate, 1);
    futex_wake_all(&run->shared->gate);
    return true;
}

void run_stop(struct run *run) { supervisor_stop_set(&run->supervisor); }

static bool was_pushed(const struct ring *ring, int64_t job)
{
    uint32_t written = atomic_load(&ring->written);

    return written > 0 && ring->slots[(written - 1) % ring->capacity].job >= job;
}

/* What a process that died in the middle of a job could not record itself. */
static void record_death(struct run *run, int idx, const siginfo_t *end)
{
    struct shared_task *task = &run->shared->tasks[idx];
    uint64_t word = atomic_exchange(&task->word, job_word(0, PHASE_OVER));
    int64_t job = word_job(word);
    int64_t t0_ns = run->shared->t0_ns;

    if (word_phase(word) == PHASE_OVER)
        return;
    task->over_ns = monotonic_ns();
    if (word_phase(word) == PHASE_PENDING || was_pushed(&task->ring, job))
        return;
    if (word_phase(word) == PHASE_ENDED) {
        atomic_fetch_add(&task->ring.lost, 1); /* how it ended is known to nobody now */
        return;
    }
    struct record record =
        record_empty(idx, job, release_ns(&run->shared->set->tasks[idx], job), JOB_EXIT_ERROR);
    record.start_ns = atomic_load(&task->start_ns) - t0_ns;
    if (word_phase(word) == PHASE_RUNNING) {
        record.code = end->si_code == CLD_EXITED ? end->si_status : 128 + end->si_status;
    } else {
        record.exit = (int16_t)exit_of_kill(word_phase(word));
        record.finish_ns = atomic_load(&task->killed_ns) - t0_ns;
    }
    ring_push(&task->ring, &record);
}

void run_note_exits(struct run *run)
{
    for (int i = 0; i < run->shared->set->head.n_tasks; i++) {
        siginfo_t end = {0};
        if (run->exited[i])
            continue;
        /* Left uncollected until the supervisor is gone: it may still signal that number. */
        if (waitid(P_PID, (id_t)run->pids[i], &end, WEXITED | WNOHANG | WNOWAIT) != 0 || end.si_pid == 0)
            continue;
        record_death(run, i, &end);
        run->exited[i] = true;
        run->n_open -= run->announced[i];
    }
}

bool run_report(struct run *run, struct out *out)
{
    bool any = false;
    bool stay = run->shared->region.memory != NULL; /* the records */

    for (int i = 0; i < run->shared->set->head.n_tasks; i++) {
        struct shared_task *task = &run->shared->tasks[i];
        bool over =
            word_phase(atomic_load(&task->word)) == PHASE_OVER; /* before the ring: nothing comes after it */
        const struct record *record;
        while (!stay && !run->announced[i] && out_has_room(out) &&
               (record = ring_peek(&task->ring)) != NULL) {
            report_job(record, out);
            ring_drop(&task->ring);
            run->n_records++;
            any = true;
        }
        if (!over || run->announced[i] || (!stay && ring_peek(&task->ring) != NULL) || !out_has_room(out))
            continue;
        run->n_records += stay ? atomic_load(&task->ring.written) : 0;
        report_task_done(i, task->over_ns - run->shared->t0_ns, out);
        run->over_ns = task->over_ns > run->over_ns ? task->over_ns : run->over_ns;
        run->announced[i] = true;
        run->n_open -= run->exited[i];
        any = true;
    }
    return any;
}

void run_end(struct run *run, struct out *out)
{
    bool supervised = atomic_load(&run->supervisor.started) == 1;
    int now_us;

    for (int i = 0; i < run->shared->set->head.n_tasks; i++)
        if (run->pids[i] > 0)
            kill(run->pids[i], SIGKILL);
    if (supervised)
        supervisor_join(&run->supervisor);
    for (int i = 0; i < run->shared->set->head.n_tasks; i++)
        if (run->pids[i] > 0)
            waitpid(run->pids[i], NULL, 0);
    for (int ms = 0; orphans_collect() && ms < ORPHANS_TIMEOUT_MS; ms++) {
        orphans_kill();
        usleep(1000);
    }
    if (rt_runtime_read(&now_us) == 0 && now_us != run->rt_runtime_us)
        rt_runtime_write(run->rt_runtime_us);
    if (out)
        report_end(run, out);
    shared_unmap(run->shared);
}
