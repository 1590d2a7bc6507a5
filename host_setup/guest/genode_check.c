/* Takes standard input as the bytes of a Genode client, in the pieces in which they come, and prints what it
 * makes of them: for tests under sanitizers. */
#include <stdio.h>
#include <unistd.h>

#include "genode_input.h"
#include "xml.h"

static struct genode_input input;
static struct genode_tasks tasks;
static struct taskset set;

static void take_text(void)
{
    struct fault fault;
    bool goal;

    if (input.tag == TAG_OPTIMIZE) {
        if (genode_goal_read(input.text, input.text_bytes, &goal, &fault))
            printf("goal %d\n", goal);
        else
            printf("fault %s\n", fault.code);
        return;
    }
    if (!genode_tasks_add(&tasks, input.text, input.text_bytes, &fault)) {
        printf("fault %s %s\n", fault.code, fault.detail);
        return;
    }
    printf("tasks %d\n", tasks.n);
    if (tasks.n == 0)
        return;
    genode_taskset(&tasks, false, 4, &set);
    for (int i = 0; i < tasks.n; i++) {
        const struct task *task = &set.tasks[i];
        printf("task %lld kind=%d policy=%lld priority=%lld offset_ns=%lld cpus=%llx limit_bytes=%lld\n",
               (long long)tasks.tasks[i].id, task->workload.kind, (long long)task->policy,
               (long long)task->priority, (long long)task->offset_ns, (unsigned long long)task->cpus,
               (long long)task->mem_limit_bytes);
        printf("jobs %lld period_ns=%lld kill_ns=%lld number=%lld\n", (long long)task->n_jobs,
               (long long)task->period_ns, (long long)task->kill_after_start_ns,
               (long long)task->workload.number);
        for (int k = 0; k < tasks.tasks[i].n_arguments; k++)
            printf("argument %s\n", tasks.tasks[i].arguments[k]);
    }
}

static bool take(enum genode_event event)
{
    switch (event) {
    case GENODE_WORD:
        if (input.tag == TAG_CLEAR)
            tasks.n = 0;
        printf("word %x\n", input.tag);
        return true;
    case GENODE_TEXT:
        take_text();
        return true;
    case GENODE_FILE:
        printf("file %u %d\n", input.left, genode_name_is_good(input.name));
        return true;
    case GENODE_FILE_END:
        printf("file end\n");
        return true;
    case GENODE_BAD:
        printf("bad: %s\n", input.why);
        return false;
    default:
        return true;
    }
}

int main(int argc, char **argv)
{
    static char piece[4096];
    size_t most = argc > 1 && argv[1][0] == '1' ? 1 : sizeof piece;
    ssize_t n;
    struct slice none = {NULL, 0};

    if (genode_input_next(&input, &none) != GENODE_NOTHING)
        return 1;
    while ((n = read(STDIN_FILENO, piece, most)) > 0) {
        struct slice bytes = {piece, (size_t)n};
        enum genode_event event;
        while ((event = genode_input_next(&input, &bytes)) != GENODE_NOTHING)
            if (!take(event))
                return 0;
    }
    return 0;
}
