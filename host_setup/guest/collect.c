#include "collect.h"

static bool take_taskset(struct collector *collector, const struct request *request, struct fault *fault)
{
    if (collector->open)
        return fault_set(fault, "order", "taskset before the run of the one before");
    collector->set.head = request->head;
    collector->n_collected = 0;
    collector->open = true;
    return true;
}

static bool take_task(struct collector *collector, const struct request *request, struct fault *fault)
{
    if (!collector->open)
        return fault_set(fault, "order", "task before taskset");
    if (collector->n_collected == collector->set.head.n_tasks)
        return fault_set(fault, "order", "more tasks than n_tasks");
    if (request->idx != collector->n_collected)
        return fault_set(fault, "order", "idx is not %lld", (long long)collector->n_collected);
    collector->set.tasks[collector->n_collected++] = request->task;
    return true;
}

static bool take_run(struct collector *collector, struct fault *fault)
{
    if (!collector->open)
        return fault_set(fault, "order", "run before taskset");
    if (collector->n_collected < collector->set.head.n_tasks)
        return fault_set(fault, "order", "run after %lld of %lld tasks", (long long)collector->n_collected,
                         (long long)collector->set.head.n_tasks);
    collector->open = false;
    return true;
}

bool collector_take(struct collector *collector, const struct request *request, struct fault *fault)
{
    switch (request->verb) {
    case VERB_TASKSET:
        return take_taskset(collector, request, fault);
    case VERB_TASK:
        return take_task(collector, request, fault);
    case VERB_RUN:
        return take_run(collector, fault);
    default:
        return fault_set(fault, "order", "only taskset, task and run make a set");
    }
}
