/* The protocol's lines about a run. */
#ifndef TASKLOADER_REPORT_H
#define TASKLOADER_REPORT_H

#include "run.h"

void report_hello(const struct spin *spin, struct out *out);
void report_fault(const struct fault *fault, struct out *out);
void report_pong(const char *token, struct out *out); /* with the time */
void report_start(const struct run *run, struct out *out); /* `accepted`, each `refused`, `start` */
void report_job(const struct record *record, struct out *out);
void report_task_done(int idx, int64_t over_ns, struct out *out);
void report_end(const struct run *run, struct out *out);

#endif
