#define _GNU_SOURCE
#include "genode_tasks.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "xml.h"

#define MAX_MS (MAX_TIME_NS / NS_PER_MS / 1000)
#define START_DELAY_NS (10 * NS_PER_MS) /* 0.1 ms and more for each task that wakes up */

enum value { VALUE_NUMBER, VALUE_BYTES, VALUE_NAME };

/* The child elements of a description. All times together stay within what the engine can tell. */
static const struct {
    const char *name;
    enum value value;
    size_t at;
    int64_t min, max;
    bool needed;
} FIELDS[] = {
    {"id", VALUE_NUMBER, offsetof(struct genode_task, id), 0, INT32_MAX, true},
    {"priority", VALUE_NUMBER, offsetof(struct genode_task, priority), 0, GENODE_EDF, true},
    {"deadline", VALUE_NUMBER, offsetof(struct genode_task, deadline_ms), 0, MAX_MS, false},
    {"period", VALUE_NUMBER, offsetof(struct genode_task, period_ms), 0, MAX_MS, true},
    {"criticaltime", VALUE_NUMBER, offsetof(struct genode_task, criticaltime_ms), 0, MAX_MS, false},
    {"offset", VALUE_NUMBER, offsetof(struct genode_task, offset_ms), 0, MAX_MS, false},
    {"numberofjobs", VALUE_NUMBER, offsetof(struct genode_task, n_jobs), 1, MAX_JOBS, true},
    {"quota", VALUE_BYTES, offsetof(struct genode_task, quota_bytes), 0, MAX_TIME_NS, false},
    {"caps", VALUE_NUMBER, offsetof(struct genode_task, caps), 0, INT32_MAX, false},
    {"cores", VALUE_NUMBER, offsetof(struct genode_task, cores), 0, 1024, false},
    {"coreoffset", VALUE_NUMBER, offsetof(struct genode_task, coreoffset), 0, 1024, false},
    {"pkg", VALUE_NAME, offsetof(struct genode_task, pkg), 0, 0, true},
};

enum { N_FIELDS = sizeof FIELDS / sizeof FIELDS[0] };

bool genode_name_is_good(const char *name)
{
    size_t length = strlen(name);

    return length >= 1 && length <= GENODE_MAX_NAME && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-") == length;
}

/* `100M`: bytes, with one of K, M, G. */
static bool bytes_parse(struct slice text, int64_t *bytes)
{
    static const char units[] = "KMG";
    const char *unit = text.length > 0 ? memchr(units, text.bytes[text.length - 1], 3) : NULL;

    if (unit)
        text.length--;
    return slice_to_number(text, bytes) &&
           !__builtin_mul_overflow(*bytes, INT64_C(1) << (unit ? 10 * (unit - units + 1) : 0), bytes);
}

static bool field_take(struct genode_task *task, int field, const struct xml *xml, struct fault *fault)
{
    struct slice text = {xml->text, xml->text_length};
    int64_t *number = (int64_t *)((char *)task + FIELDS[field].at);

    if (FIELDS[field].value == VALUE_NAME) {
        if (!genode_name_is_good(xml->text))
            return fault_set(fault, "bad_value", "%s is no program's name", FIELDS[field].name);
        memcpy(task->pkg, xml->text, xml->text_length + 1);
        return true;
    }
    if (FIELDS[field].value == VALUE_BYTES ? !bytes_parse(text, number) : !slice_to_number(text, number))
        return fault_set(fault, "bad_value", "%s is not a number", FIELDS[field].name);
    return (*number >= FIELDS[field].min && *number <= FIELDS[field].max) ||
           fault_set(fault, "range", "%s is not within %lld..%lld", FIELDS[field].name,
                     (long long)FIELDS[field].min, (long long)FIELDS[field].max);
}

static bool xml_fault(const struct xml *xml, struct fault *fault)
{
    return fault_set(fault, "syntax", "%s", xml->why ? xml->why : "not what a description looks like");
}

/* The children of `config`, in their order. */
static bool config_take(struct xml *xml, struct genode_task *task, struct fault *fault)
{
    for (;;) {
        enum xml_event event = xml_next(xml);
        if (event == XML_CLOSE && xml->text_length == 0)
            return true;
        if (event != XML_OPEN || xml_next(xml) != XML_CLOSE)
            return xml_fault(xml, fault);
        if (task->n_arguments == GENODE_MAX_ARGUMENTS || xml->text_length > GENODE_MAX_ARGUMENT)
            return fault_set(fault, "range", "config holds more than %d values of %d bytes",
                             GENODE_MAX_ARGUMENTS, GENODE_MAX_ARGUMENT);
        memcpy(task->arguments[task->n_arguments++], xml->text, xml->text_length + 1);
    }
}

static bool fields_check(const struct genode_task *task, const bool seen[], struct fault *fault)
{
    int64_t last;

    for (int i = 0; i < N_FIELDS; i++)
        if (FIELDS[i].needed && !seen[i])
            return fault_set(fault, "missing_key", "%s", FIELDS[i].name);
    if (task->period_ms == 0)
        return task->n_jobs == 1 || fault_set(fault, "bad_value", "numberofjobs is 1 without a period");
    if (__builtin_mul_overflow(task->n_jobs, task->period_ms, &last) || last > MAX_MS)
        return fault_set(fault, "range", "numberofjobs * period is above %lld ms", (long long)MAX_MS);
    return true;
}

/* From behind its start tag to its end. */
static bool task_take(struct xml *xml, struct genode_task *task, struct fault *fault)
{
    bool seen[N_FIELDS] = {false}, seen_config = false;

    for (;;) {
        enum xml_event event = xml_next(xml);
        if (event == XML_CLOSE)
            return fields_check(task, seen, fault);
        if (event != XML_OPEN)
            return xml_fault(xml, fault);
        struct slice name = xml->name;
        int i = 0;
        while (i < N_FIELDS && !slice_is(name, FIELDS[i].name))
            i++;
        bool is_config = slice_is(name, "config");
        if (i == N_FIELDS && !is_config)
            return fault_set(fault, "unknown_key", "%.*s", (int)name.length, name.bytes);
        if (is_config ? seen_config : seen[i])
            return fault_set(fault, "repeated_key", "%.*s", (int)name.length, name.bytes);
        *(is_config ? &seen_config : &seen[i]) = true;
        if (is_config) {
            if (!config_take(xml, task, fault))
                return false;
        } else if (xml_next(xml) != XML_CLOSE) {
            return xml_fault(xml, fault);
        } else if (!field_take(task, i, xml, fault)) {
            return false;
        }
    }
}

static bool tasks_take(struct xml *xml, struct genode_tasks *tasks, struct fault *fault)
{
    if (xml_next(xml) != XML_OPEN || !slice_is(xml->name, "taskset"))
        return xml_fault(xml, fault);
    for (;;) {
        enum xml_event event = xml_next(xml);
        if (event == XML_CLOSE && xml->text_length == 0)
            break;
        if (event != XML_OPEN || !slice_is(xml->name, "periodictask"))
            return xml_fault(xml, fault);
        if (tasks->n == MAX_TASKS)
            return fault_set(fault, "range", "more than %d tasks", MAX_TASKS);
        struct genode_task *task = &tasks->tasks[tasks->n];
        memset(task, 0, sizeof *task);
        if (!task_take(xml, task, fault))
            return false;
        for (int i = 0; i < tasks->n; i++)
            if (tasks->tasks[i].id == task->id)
                return fault_set(fault, "bad_value", "two tasks have the id %lld", (long long)task->id);
        tasks->n++;
    }
    return xml_next(xml) == XML_END || xml_fault(xml, fault);
}

bool genode_tasks_add(struct genode_tasks *tasks, const char *text, size_t bytes, struct fault *fault)
{
    struct xml xml = xml_begin(text, bytes);
    int n_before = tasks->n;

    if (tasks_take(&xml, tasks, fault))
        return true;
    tasks->n = n_before;
    return false;
}

bool genode_goal_read(const char *text, size_t bytes, bool *goal, struct fault *fault)
{
    struct xml xml = xml_begin(text, bytes);
    enum xml_event event = XML_END;

    *goal = false;
    if (xml.at == xml.end)
        return true;
    while ((event = xml_next(&xml)) != XML_END) {
        if (event == XML_BAD)
            return xml_fault(&xml, fault);
        if (xml.n_elements > 1 || xml.text_length > 0)
            *goal = true;
    }
    return true;
}

/* The set's priorities on the kernel's, the most urgent on its highest. As many as there are tasks at most,
 * so that none has to be shared. */
static int64_t fifo_priority(const struct genode_tasks *tasks, int64_t priority)
{
    int64_t above = 0;

    for (int64_t level = 0; level < priority; level++)
        for (int i = 0; i < tasks->n; i++)
            if (tasks->tasks[i].priority == level) {
                above++;
                break;
            }
    return MAX_PRIORITY - above;
}

/* A job is killed after so much time, whatever it used of it, or has to end before its next one: a budget that
 * is never short. */
static void set_deadline_policy(const struct genode_task *from, struct task *to)
{
    int64_t deadline_ms = from->deadline_ms > 0 ? from->deadline_ms : from->period_ms;
    int64_t period_ms = from->period_ms > 0 ? from->period_ms : deadline_ms;
    int64_t runtime_ms;

    deadline_ms = deadline_ms < period_ms ? deadline_ms : period_ms; /* the kernel's rule */
    runtime_ms =
        from->criticaltime_ms > 0 && from->criticaltime_ms < deadline_ms ? from->criticaltime_ms : deadline_ms;
    to->policy = POLICY_DEADLINE;
    to->priority = 0;
    to->dl_runtime_ns = runtime_ms * NS_PER_MS;
    to->dl_deadline_ns = deadline_ms * NS_PER_MS;
    to->dl_period_ns = period_ms * NS_PER_MS;
}

/* `cores` columns of equal width over all processors, of which the task gets one; all of them are no mask. */
static uint64_t cpus_of(const struct genode_task *task, int n_cpus)
{
    if (task->cores == 0)
        return 0;
    int64_t column = task->coreoffset % task->cores;
    int64_t first = column * n_cpus / task->cores, after = (column + 1) * n_cpus / task->cores;
    uint64_t mask = 0;

    if (after == first)
        after++;
    if (after - first >= n_cpus)
        return 0;
    for (int64_t cpu = first; cpu < after && cpu < 64; cpu++)
        mask |= UINT64_C(1) << cpu;
    return mask;
}

/* The path that a client's program has, or would have, and its arguments. */
static void set_executable(const struct genode_task *from, struct workload *workload)
{
    char *next = workload->arguments;

    workload->kind = WORKLOAD_EXECUTABLE;
    workload->number = NOT_GIVEN;
    workload->n_arguments = 1 + from->n_arguments;
    next += sprintf(next, GENODE_FILES "/%s", from->pkg) + 1;
    for (int i = 0; i < from->n_arguments; i++)
        next = stpcpy(next, from->arguments[i]) + 1;
}

static void set_workload(const struct genode_task *from, struct workload *workload)
{
    struct slice name = {from->pkg, strlen(from->pkg)};
    const char *text = from->n_arguments > 0 && from->arguments[0][0] ? from->arguments[0] : "-";
    struct fault fault;

    if (slice_is(name, "hey") || slice_is(name, "namaste"))
        text = "-";
    if (slice_is(name, "executable") ||
        !workload_parse(name, (struct slice){text, strlen(text)}, workload, &fault))
        set_executable(from, workload);
}

static void set_task(const struct genode_tasks *tasks, int i, int n_cpus, struct task *to)
{
    const struct genode_task *from = &tasks->tasks[i];

    to->policy = POLICY_FIFO;
    to->priority = fifo_priority(tasks, from->priority);
    to->period_ns = from->period_ms > 0 ? from->period_ms * NS_PER_MS : NOT_GIVEN;
    to->deadline_ns = from->deadline_ms > 0 ? from->deadline_ms * NS_PER_MS : NOT_GIVEN;
    to->n_jobs = from->n_jobs;
    to->kill_after_start_ns = from->criticaltime_ms > 0 ? from->criticaltime_ms * NS_PER_MS : NOT_GIVEN;
    to->mem_limit_bytes = from->quota_bytes > 0 ? from->quota_bytes : NOT_GIVEN;
    to->cpus = cpus_of(from, n_cpus);
    to->dl_runtime_ns = to->dl_deadline_ns = to->dl_period_ns = NOT_GIVEN;
    if (from->priority == GENODE_EDF)
        set_deadline_policy(from, to);
    set_workload(from, &to->workload);
}

void genode_taskset(const struct genode_tasks *tasks, bool goal, int n_cpus, struct taskset *set)
{
    int64_t offset_ms = 0;

    set->head = (struct taskset_head){
        .id = "genode",
        .n_tasks = tasks->n,
        .overrun = OVERRUN_KILL_AND_SKIP,
        .admission_control = goal,
        .start_delay_ns = START_DELAY_NS,
        .stop_ns = MAX_TIME_NS,
    };
    for (int i = 0; i < tasks->n; i++) {
        /* Whoever starts the tasks sleeps for the offset of one before it comes to the next. */
        offset_ms += tasks->tasks[i].offset_ms;
        set_task(tasks, i, n_cpus, &set->tasks[i]);
        set->tasks[i].offset_ns = offset_ms * NS_PER_MS;
    }
}
