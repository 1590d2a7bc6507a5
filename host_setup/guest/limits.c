#include "limits.h"

int64_t limit_ns(const struct shared *shared, int idx, int64_t job, int64_t start_ns, enum phase *phase)
{
    const struct task *task = &shared->set->tasks[idx];
    enum overrun overrun = (enum overrun)shared->set->head.overrun;
    int64_t limit = overrun_limit_ns(task, overrun, job);

    *phase = overrun == OVERRUN_KILL_AND_SKIP ? PHASE_KILLED_PERIOD : PHASE_KILLED_DEADLINE;
    if (limit != INT64_MAX)
        limit += shared->t0_ns;
    if (task->kill_after_start_ns != NOT_GIVEN && start_ns + task->kill_after_start_ns <= limit) {
        limit = start_ns + task->kill_after_start_ns;
        *phase = PHASE_KILLED_CRITICAL;
    }
    return limit;
}

bool take_job(struct shared_task *task, int64_t job, enum phase phase, int64_t now_ns)
{
    uint64_t word = job_word(job, PHASE_RUNNING);

    atomic_store(&task->killed_ns, now_ns);
    return atomic_compare_exchange_strong(&task->word, &word, job_word(job, phase));
}
