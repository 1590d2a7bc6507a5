/* The protocol's lines, and those about a run. */
#ifndef TASKLOADER_REPORT_H
#define TASKLOADER_REPORT_H

#include "run.h"

void report_hello(const struct spin *spin, struct out *out);
void report_fault(const struct fault *fault, struct out *out);
void report_pong(const char *token, struct out *out); /* with the time */

/* How a run is told of. Each writes at most a quarter of OUT_ROOM, `start` all of it. */
struct report_form {
    void (*start)(const struct run *run, struct out *out);
    void (*job)(const struct run *run, const struct record *record, struct out *out);
    void (*task_done)(const struct run *run, int idx, struct out *out);
    void (*end)(const struct run *run, struct out *out);
};

/* `accepted`, each `refused`, `start`; `job`; `task_done`; `end`. */
extern const struct report_form REPORT_LINES;

#endif
