#define _GNU_SOURCE
#include "self_check.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "clock.h"
#include "interrupt.h"
#include "limits.h"

/* Less than a tick: every tick at which the task runs. */
#define INTERVAL_NS NS_PER_MS

static _Thread_local struct {
    struct shared *shared;
    int idx;
} watched;

void self_check_watch(struct shared *shared, int idx)
{
    watched.shared = shared;
    watched.idx = idx;
}

bool self_check_is_due(void)
{
    struct shared *shared = watched.shared;
    struct shared_task *task = &shared->tasks[watched.idx];
    uint64_t word = atomic_load(&task->word);
    int64_t now_ns = monotonic_ns();
    int64_t none = 0;
    enum phase phase;

    if (word_phase(word) != PHASE_RUNNING)
        return false;
    if (now_ns >= shared->stop_at_ns) {
        atomic_compare_exchange_strong(&shared->stopped_ns, &none, shared->stop_at_ns);
        return take_job(task, word_job(word), PHASE_KILLED_EXTERNAL, now_ns);
    }
    if (now_ns < limit_ns(shared, watched.idx, word_job(word), atomic_load(&task->start_ns), &phase))
        return false;
    return take_job(task, word_job(word), phase, now_ns);
}

bool self_check_is_needed(const struct taskset *set)
{
    double utilization = 0.0;

    for (int i = 0; i < set->head.n_tasks; i++)
        if (task_is_deadline(&set->tasks[i]))
            utilization += (double)set->tasks[i].dl_runtime_ns / (double)set->tasks[i].dl_period_ns;
    return utilization > 1.0;
}

int self_check_start(timer_t *timer, pthread_t thread, pid_t tid)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
                             .sigev_signo = INTERRUPT_CHECK_SIGNAL,
                             ._sigev_un._tid = tid}; /* POSIX has no name for it, nor this C library */
    const struct timespec interval = timespec_of_ns(INTERVAL_NS);
    const struct itimerspec period = {.it_interval = interval, .it_value = interval};
    clockid_t clock;
    int error = pthread_getcpuclockid(thread, &clock);

    if (error)
        return error;
    if (timer_create(clock, &event, timer) != 0)
        return errno;
    if (timer_settime(*timer, 0, &period, NULL) == 0)
        return 0;
    error = errno;
    timer_delete(*timer);
    return error;
}

void self_check_stop(timer_t timer) { timer_delete(timer); }
