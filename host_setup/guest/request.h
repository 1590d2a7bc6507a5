/* From one line of input to a validated request. Pure: no I/O, no state, no allocation. */
#ifndef TASKLOADER_REQUEST_H
#define TASKLOADER_REQUEST_H

#include <stddef.h>

#include "slice.h"
#include "taskset.h"

enum verb { VERB_TASKSET, VERB_TASK, VERB_RUN, VERB_PING, VERB_STOP, VERB_QUIT };

struct request {
    enum verb verb;
    struct taskset_head head;  /* VERB_TASKSET */
    int64_t idx;               /* VERB_TASK */
    struct task task;          /* VERB_TASK */
    char token[MAX_TOKEN + 1]; /* VERB_PING */
};

/* Why a request was turned down; `code` is one of the protocol's words, `detail` is for people. */
struct fault {
    const char *code;
    char detail[200];
};

/* Fills `fault`; always returns false, so that a check can end with `return fault_set(...)`. */
bool fault_set(struct fault *fault, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What a job of the workload `name` with `args`, written as in a request, does. */
bool workload_parse(struct slice name, struct slice args, struct workload *workload, struct fault *fault);

/* Parses `length` bytes at `line` (any bytes; the newline is not among them). Returns false with `fault`
 * filled when it is not a valid request. */
bool request_parse(const char *line, size_t length, struct request *request, struct fault *fault);

/* Whether the line is a `task` or `run` line, however malformed: it belongs to a task set. */
bool request_belongs_to_set(const char *line, size_t length);

#endif
