#include "genode_report.h"

#include <string.h>

#include "clock.h"

static const char *const TYPES[] = {
    [JOB_EXIT] = "EXIT",
    [JOB_EXIT_CRITICAL] = "EXIT_CRITICAL",
    [JOB_EXIT_PERIOD] = "EXIT_PERIOD",
    [JOB_EXIT_DEADLINE] = "EXIT_PERIOD", /* never: no set from here has that policy */
    [JOB_EXIT_EXTERNAL] = "EXIT_EXTERNAL",
    [JOB_EXIT_ERROR] = "EXIT_ERROR",
    [JOB_OUT_OF_QUOTA] = "OUT_OF_QUOTA",
    [JOB_NOT_SCHEDULED] = "NOT_SCHEDULED",
    [JOB_SKIPPED] = NULL,
};

static void event(int64_t id, const char *type, int64_t at_ns, struct out *out)
{
    out_text(out, "<event task-id=\"");
    out_number(out, id);
    out_text(out, "\" type=\"");
    out_text(out, type);
    out_text(out, "\" time-stamp=\"");
    out_number(out, at_ns / NS_PER_MS);
    out_text(out, "\"/>\n");
}

static int64_t id_of(const struct run *run, int idx)
{
    const struct genode_tasks *tasks = run->form_data;

    return tasks->tasks[idx].id;
}

static void profile_nothing(const struct run *run, struct out *out)
{
    (void)run;
    (void)out;
}

/* The instant of a time in a record; the set's start for one that is unknown. */
static int64_t instant_ns(const struct run *run, int64_t ns)
{
    return run->shared.t0_ns + (ns > 0 ? ns : 0);
}

/* A job that never got the processor has begun all the same, at its release: the protocol knows no other. */
static void profile_job(const struct run *run, const struct record *record, struct out *out)
{
    int64_t id = id_of(run, record->task);
    int64_t start_ns = record->start_ns != UNKNOWN ? record->start_ns : record->release_ns;

    if (!TYPES[record->exit])
        return;
    if (record->exit != JOB_NOT_SCHEDULED)
        event(id, "START", instant_ns(run, start_ns), out);
    event(id, TYPES[record->exit], instant_ns(run, record->finish_ns), out);
}

/* Whoever was stopped has not run all its jobs. */
static void profile_task_done(const struct run *run, int idx, struct out *out)
{
    int64_t stopped_ns = atomic_load(&run->shared.stopped_ns);
    int64_t over_ns = run->shared.tasks[idx].over_ns;

    if (stopped_ns == 0 || over_ns < stopped_ns)
        event(id_of(run, idx), "JOBS_DONE", over_ns, out);
}

const struct report_form GENODE_PROFILE = {profile_nothing, profile_job, profile_task_done, profile_nothing};

void genode_report_word(uint32_t word, struct out *out)
{
    const char bytes[] = {(char)word, (char)(word >> 8), (char)(word >> 16), (char)(word >> 24)};

    out_bytes(out, bytes, sizeof bytes);
}

/* The size in front is filled in by `profile_end`; returns where it is. */
static size_t profile_begin(struct out *out)
{
    size_t at = out->used;

    genode_report_word(0, out);
    out_text(out, "<profile><events>\n");
    return at;
}

static void profile_end(struct out *out, size_t at)
{
    out_bytes(out, "</events></profile>\n", sizeof "</events></profile>\n"); /* with its NUL */
    size_t end = out->used;
    uint32_t bytes = (uint32_t)(end - at - sizeof bytes);

    out->used = at;
    genode_report_word(bytes, out);
    out->used = end;
}

bool genode_report(struct run *run, struct out *out)
{
    size_t at = profile_begin(out), empty = out->used;

    run_report(run, out);
    if (out->used == empty)
        out->used = at;
    else
        profile_end(out, at);
    return out->used > at;
}

void genode_report_refusal(const struct genode_tasks *tasks, struct out *out)
{
    int64_t now_ns = monotonic_ns();
    size_t at = profile_begin(out);

    for (int i = 0; i < tasks->n; i++) {
        event(tasks->tasks[i].id, "NOT_SCHEDULED", now_ns, out);
        event(tasks->tasks[i].id, "JOBS_DONE", now_ns, out);
    }
    profile_end(out, at);
}
