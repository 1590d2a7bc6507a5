#include "request.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "slice.h"

enum field_kind { FIELD_NUMBER, FIELD_CHOICE, FIELD_MASK, FIELD_TOKEN, FIELD_SLICE };

/* One `key=value` of a verb: what it may hold and where it goes. */
struct field {
    const char *key;
    enum field_kind kind;
    void *to;
    int64_t min, max;
    bool optional; /* `-` means NOT_GIVEN */
    const char *const *choices;
};

#define MAX_FIELDS 16

static const char *const OVERRUNS[] = {"continue", "kill_and_skip", "abort_at_deadline", NULL};
static const char *const POLICIES[] = {"fifo", "rr", "deadline", "other", NULL};

enum arguments { ARGUMENTS_NONE, ARGUMENTS_NUMBER, ARGUMENTS_NUMBER_OR_NONE, ARGUMENTS_PATH };

static const struct {
    const char *name;
    enum workload_kind kind;
    enum arguments arguments;
    int64_t max;
} WORKLOADS[] = {
    {"spin", WORKLOAD_SPIN, ARGUMENTS_NUMBER, MAX_TIME_NS},
    {"hey", WORKLOAD_HEY, ARGUMENTS_NONE, 0},
    {"namaste", WORKLOAD_NAMASTE, ARGUMENTS_NONE, 0},
    {"pi", WORKLOAD_PI, ARGUMENTS_NUMBER, MAX_TIME_NS},
    {"tumatmul", WORKLOAD_TUMATMUL, ARGUMENTS_NUMBER, INT64_C(1) << 40},
    {"linpack", WORKLOAD_LINPACK, ARGUMENTS_NUMBER, 1 << 16},
    {"cond_mod", WORKLOAD_COND_MOD, ARGUMENTS_NUMBER, MAX_TIME_NS},
    {"cond_42", WORKLOAD_COND_42, ARGUMENTS_NUMBER, MAX_TIME_NS},
    {"idle", WORKLOAD_IDLE, ARGUMENTS_NUMBER_OR_NONE, MAX_TIME_NS / 1000000},
    {"executable", WORKLOAD_EXECUTABLE, ARGUMENTS_PATH, 0},
};

bool fault_set(struct fault *fault, const char *code, const char *format, ...)
{
    va_list arguments;

    fault->code = code;
    va_start(arguments, format);
    vsnprintf(fault->detail, sizeof fault->detail, format, arguments);
    va_end(arguments);
    return false;
}

static bool token_parse(struct slice text, char token[MAX_TOKEN + 1])
{
    if (text.length < 1 || text.length > MAX_TOKEN)
        return false;
    for (size_t i = 0; i < text.length; i++) {
        char c = text.bytes[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
              c == '-'))
            return false;
    }
    memcpy(token, text.bytes, text.length);
    token[text.length] = '\0';
    return true;
}

static bool field_parse_number(const struct field *field, struct slice value, struct fault *fault)
{
    int64_t *number = field->to;

    if (field->optional && slice_is(value, "-")) {
        *number = NOT_GIVEN;
        return true;
    }
    if (!slice_to_number(value, number))
        return fault_set(fault, "bad_value", "%s is not a decimal number%s", field->key,
                         field->optional ? " or -" : "");
    if (*number < field->min || *number > field->max)
        return fault_set(fault, "range", "%s is not within %lld..%lld", field->key, (long long)field->min,
                         (long long)field->max);
    return true;
}

static bool field_parse_choice(const struct field *field, struct slice value, struct fault *fault)
{
    for (int i = 0; field->choices[i]; i++) {
        if (slice_is(value, field->choices[i])) {
            *(int64_t *)field->to = i;
            return true;
        }
    }
    return fault_set(fault, "bad_value", "%s is none of its possible values", field->key);
}

static bool field_parse(const struct field *field, struct slice value, struct fault *fault)
{
    switch (field->kind) {
    case FIELD_NUMBER:
        return field_parse_number(field, value, fault);
    case FIELD_CHOICE:
        return field_parse_choice(field, value, fault);
    case FIELD_MASK:
        return slice_to_mask(value, field->to) ||
               fault_set(fault, "bad_value", "%s is no mask of CPUs", field->key);
    case FIELD_TOKEN:
        return token_parse(value, field->to) ||
               fault_set(fault, "bad_value", "%s is not 1-%d characters of A-Za-z0-9_-", field->key,
                         MAX_TOKEN);
    case FIELD_SLICE:
        *(struct slice *)field->to = value;
        return true;
    }
    __builtin_unreachable();
}

/* Every field exactly once, in any order, and nothing else. */
static bool fields_parse(struct slice rest, const struct field *fields, size_t n_fields, struct fault *fault)
{
    bool seen[MAX_FIELDS] = {false};
    struct slice word, key;

    while (slice_next(&rest, ' ', &word)) {
        struct slice value = word;
        size_t i = 0;
        slice_next(&value, '=', &key);
        if (value.bytes == NULL)
            return fault_set(fault, "syntax", "a word is not key=value");
        while (i < n_fields && !slice_is(key, fields[i].key))
            i++;
        if (i == n_fields)
            return fault_set(fault, "unknown_key", "%.*s", (int)(key.length > 64 ? 64 : key.length),
                             key.bytes);
        if (seen[i])
            return fault_set(fault, "repeated_key", "%s", fields[i].key);
        seen[i] = true;
        if (!field_parse(&fields[i], value, fault))
            return false;
    }
    for (size_t i = 0; i < n_fields; i++)
        if (!seen[i])
            return fault_set(fault, "missing_key", "%s", fields[i].key);
    return true;
}

#define FIELDS_PARSE(rest, fields, fault) fields_parse(rest, fields, sizeof fields / sizeof fields[0], fault)

static bool path_parse(struct slice list, struct workload *workload, struct fault *fault)
{
    struct slice argument;
    size_t used = 0;

    workload->n_arguments = 0;
    while (slice_next(&list, ',', &argument)) {
        int length = slice_decode(argument, workload->arguments + used, sizeof workload->arguments - used);
        if (length < 0)
            return fault_set(fault, "bad_value", "args is not a list of percent-encoded values");
        used += (size_t)length;
        workload->n_arguments++;
    }
    if (workload->arguments[0] != '/')
        return fault_set(fault, "bad_value", "an executable's path starts with /");
    return true;
}

bool workload_parse(struct slice name, struct slice args, struct workload *workload, struct fault *fault)
{
    size_t i = 0, n = sizeof WORKLOADS / sizeof WORKLOADS[0];

    while (i < n && !slice_is(name, WORKLOADS[i].name))
        i++;
    if (i == n)
        return fault_set(fault, "bad_value", "workload is unknown");
    workload->kind = WORKLOADS[i].kind;
    workload->number = NOT_GIVEN;
    if (WORKLOADS[i].arguments == ARGUMENTS_PATH)
        return path_parse(args, workload, fault);
    if (slice_is(args, "-") && WORKLOADS[i].arguments != ARGUMENTS_NUMBER)
        return true;
    if (WORKLOADS[i].arguments == ARGUMENTS_NONE)
        return fault_set(fault, "bad_value", "%s takes no args", WORKLOADS[i].name);
    if (!slice_to_number(args, &workload->number))
        return fault_set(fault, "bad_value", "args of %s is not one decimal number", WORKLOADS[i].name);
    if (workload->number > WORKLOADS[i].max)
        return fault_set(fault, "range", "args of %s is above %lld", WORKLOADS[i].name,
                         (long long)WORKLOADS[i].max);
    return true;
}

/* What no single field can tell. */
static bool task_check(const struct task *task, struct fault *fault)
{
    bool realtime = task->policy == POLICY_FIFO || task->policy == POLICY_RR;
    bool deadline = task->policy == POLICY_DEADLINE;
    int64_t last;

    if (realtime ? task->priority < 1 : task->priority != 0)
        return fault_set(fault, "range", "priority is 1..%d with fifo and rr, 0 otherwise", MAX_PRIORITY);
    if ((task->dl_runtime_ns != NOT_GIVEN) != deadline || (task->dl_deadline_ns != NOT_GIVEN) != deadline ||
        (task->dl_period_ns != NOT_GIVEN) != deadline)
        return fault_set(fault, "bad_value",
                         "dl_runtime_ns, dl_deadline_ns and dl_period_ns go with policy=deadline, all three");
    if (deadline && task->workload.kind == WORKLOAD_EXECUTABLE)
        return fault_set(fault, "unsupported",
                         "a SCHED_DEADLINE task may not fork, so it runs no executable");
    if (task->period_ns == NOT_GIVEN)
        return task->n_jobs == 1 || fault_set(fault, "bad_value", "n_jobs is 1 without a period_ns");
    if (__builtin_mul_overflow(task->n_jobs, task->period_ns, &last) || last > MAX_TIME_NS)
        return fault_set(fault, "range", "n_jobs * period_ns is above %lld", (long long)MAX_TIME_NS);
    return true;
}

static bool taskset_parse(struct slice rest, struct taskset_head *head, struct fault *fault)
{
    int64_t version;
    const struct field fields[] = {
        {"version", FIELD_NUMBER, &version, PROTOCOL_VERSION, PROTOCOL_VERSION, false, NULL},
        {"id", FIELD_TOKEN, head->id, 0, 0, false, NULL},
        {"n_tasks", FIELD_NUMBER, &head->n_tasks, 1, MAX_TASKS, false, NULL},
        {"overrun", FIELD_CHOICE, &head->overrun, 0, 0, false, OVERRUNS},
        {"admission_control", FIELD_NUMBER, &head->admission_control, 0, 1, false, NULL},
        {"start_delay_ns", FIELD_NUMBER, &head->start_delay_ns, 0, MAX_TIME_NS, false, NULL},
        {"stop_ns", FIELD_NUMBER, &head->stop_ns, 1, MAX_TIME_NS, false, NULL},
    };

    return FIELDS_PARSE(rest, fields, fault);
}

static bool task_parse(struct slice rest, int64_t *idx, struct task *task, struct fault *fault)
{
    struct slice workload, args;
    const struct field fields[] = {
        {"idx", FIELD_NUMBER, idx, 0, MAX_TASKS - 1, false, NULL},
        {"policy", FIELD_CHOICE, &task->policy, 0, 0, false, POLICIES},
        {"priority", FIELD_NUMBER, &task->priority, 0, MAX_PRIORITY, false, NULL},
        {"period_ns", FIELD_NUMBER, &task->period_ns, 1, MAX_TIME_NS, true, NULL},
        {"deadline_ns", FIELD_NUMBER, &task->deadline_ns, 1, MAX_TIME_NS, true, NULL},
        {"offset_ns", FIELD_NUMBER, &task->offset_ns, 0, MAX_TIME_NS, false, NULL},
        {"n_jobs", FIELD_NUMBER, &task->n_jobs, 1, MAX_JOBS, false, NULL},
        {"kill_after_start_ns", FIELD_NUMBER, &task->kill_after_start_ns, 1, MAX_TIME_NS, true, NULL},
        {"mem_limit_bytes", FIELD_NUMBER, &task->mem_limit_bytes, 1, MAX_TIME_NS, true, NULL},
        {"cpus", FIELD_MASK, &task->cpus, 0, 0, true, NULL},
        {"dl_runtime_ns", FIELD_NUMBER, &task->dl_runtime_ns, 1, MAX_TIME_NS, true, NULL},
        {"dl_deadline_ns", FIELD_NUMBER, &task->dl_deadline_ns, 1, MAX_TIME_NS, true, NULL},
        {"dl_period_ns", FIELD_NUMBER, &task->dl_period_ns, 1, MAX_TIME_NS, true, NULL},
        {"workload", FIELD_SLICE, &workload, 0, 0, false, NULL},
        {"args", FIELD_SLICE, &args, 0, 0, false, NULL},
    };

    return FIELDS_PARSE(rest, fields, fault) && workload_parse(workload, args, &task->workload, fault) &&
           task_check(task, fault);
}

bool request_parse(const char *line, size_t length, struct request *request, struct fault *fault)
{
    struct slice rest = {line, length}, verb;
    const struct field ping[] = {{"token", FIELD_TOKEN, request->token, 0, 0, false, NULL}};

    for (size_t i = 0; i < length; i++)
        if (line[i] < 0x20 || line[i] > 0x7e)
            return fault_set(fault, "syntax", "byte %zu is not printable ASCII", i);
    slice_next(&rest, ' ', &verb);
    if (slice_is(verb, "taskset")) {
        request->verb = VERB_TASKSET;
        return taskset_parse(rest, &request->head, fault);
    }
    if (slice_is(verb, "task")) {
        request->verb = VERB_TASK;
        return task_parse(rest, &request->idx, &request->task, fault);
    }
    if (slice_is(verb, "ping")) {
        request->verb = VERB_PING;
        return FIELDS_PARSE(rest, ping, fault);
    }
    if (slice_is(verb, "run"))
        request->verb = VERB_RUN;
    else if (slice_is(verb, "stop"))
        request->verb = VERB_STOP;
    else if (slice_is(verb, "quit"))
        request->verb = VERB_QUIT;
    else
        return fault_set(fault, "unknown_verb", "known are taskset, task, run, ping, stop, quit");
    return fields_parse(rest, NULL, 0, fault);
}

bool request_belongs_to_set(const char *line, size_t length)
{
    struct slice rest = {line, length}, verb;

    slice_next(&rest, ' ', &verb);
    return slice_is(verb, "task") || slice_is(verb, "run");
}
