"""Answers that most readers of the data want first, so that one line of SQL is enough."""

from __future__ import annotations

from runner.data.features import VIEW as FEATURES_VIEW

VIEWS = (
    FEATURES_VIEW,
    """CREATE VIEW responses AS
-- One row per task and valid run: the worst response time of its finished jobs, and its ratio to the deadline.
SELECT runs.run_id, taskset_id, tasksets.name AS taskset, utilization, task_idx, tasks.name AS task,
    count(*) AS n_jobs, count(response_ns) AS n_finished, count(*) FILTER (WHERE missed) AS n_missed,
    max(response_ns) AS worst_response_ns, deadline_ns,
    1.0 * max(response_ns) / deadline_ns AS response_over_deadline, repetition, validity
FROM jobs JOIN runs USING (run_id) JOIN tasksets USING (taskset_id) JOIN tasks USING (taskset_id, task_idx)
GROUP BY runs.run_id, task_idx""",
    """CREATE VIEW valid_runs AS
-- Attempts that say something about their task set; the others are the infrastructure's or the operator's.
SELECT * FROM runs WHERE outcome IN ('completed', 'timeout', 'rejected')""",
    """CREATE VIEW acceptance AS
-- One row per utilization asked for and scheduler: how many task sets were measured, in how many runs, and in which share of the
-- sets no job missed in any run. Where a failed job leaves that open, the set counts in n_tasksets only. Sets that the host disturbed in
-- every run count in n_disturbed only; what does not repeat, nowhere.
WITH measured AS (
    SELECT taskset_id, max(scheduler) AS scheduler, count(*) FILTER (WHERE validity IS NOT 'disturbed') AS n_runs,
        min(schedulable) FILTER (WHERE validity IS NOT 'disturbed') AS all_met,
        count(*) FILTER (WHERE validity IS NOT 'disturbed' AND schedulable IS NULL) AS n_open
    FROM valid_runs GROUP BY taskset_id
), judged AS (
    SELECT taskset_id, scheduler, n_runs, CASE WHEN all_met = 0 OR n_open = 0 THEN all_met END AS schedulable FROM measured
)
SELECT round(coalesce(utilization_target, utilization), 6) AS utilization,
    count(*) FILTER (WHERE n_runs) AS n_tasksets, sum(n_runs) AS n_runs,
    count(*) FILTER (WHERE schedulable) AS n_schedulable, avg(schedulable) AS ratio,
    count(*) FILTER (WHERE n_runs = 0) AS n_disturbed, scheduler
FROM judged JOIN tasksets USING (taskset_id) WHERE state IS NOT 'unrepeatable'
GROUP BY 1, scheduler ORDER BY 1, scheduler""",
    """CREATE VIEW progress AS
-- One row per submission: submitted = done + bad + pending. A set is done when each of its measurements is, and bad when it was
-- given up; one that was not handed out yet is pending where it is known how many there are, and not yet submitted elsewhere.
WITH sets AS (
    SELECT submission, set_idx, max(state = 'bad') AS bad, count(*) FILTER (WHERE state = 'done') AS n_measured
    FROM ledger GROUP BY submission, set_idx
), counted AS (
    SELECT submission, source, repeat, n_total, count(set_idx) AS n_handed_out,
        count(*) FILTER (WHERE NOT bad AND n_measured >= repeat) AS n_done, count(*) FILTER (WHERE bad) AS n_bad
    FROM submissions LEFT JOIN sets USING (submission) GROUP BY submission
)
SELECT submission, source, repeat, coalesce(n_total, n_handed_out) AS n_submitted, n_done, n_bad,
    coalesce(n_total, n_handed_out) - n_done - n_bad AS n_pending, n_handed_out, n_total IS NOT NULL AS complete
FROM counted ORDER BY submission""",
    """CREATE VIEW disagreements AS
-- One row per run and kind of contradiction: a job missed in a set that analysis proves schedulable ('proven, missed'); none missed
-- where one had to, within what the run covered ('must miss, met'); the ideal processor missed and the run did not, or the other way
-- round ('ideal missed, met', 'ideal met, missed'). Runs that the host disturbed, or the kernel refused, are left out.
-- margin: the least of the tests concerned; a guest has overheads, so small ones are to be expected.
WITH compared AS (
    SELECT run_id, runs.taskset_id, test, margin, analyses.horizon_ns, n_missed, runs.n_jobs, validity,
        (SELECT min(coalesce(runs.end_ns, offset_ns + n_jobs * period_ns), min(offset_ns + n_jobs * period_ns)) FROM tasks
            WHERE tasks.taskset_id = runs.taskset_id) AS covered_ns,
        CASE
            WHEN n_missed > 0 AND test = 'simulation' AND verdict = 'unknown' THEN 'ideal met, missed'
            WHEN n_missed > 0 AND verdict = 'schedulable' THEN 'proven, missed'
            WHEN n_missed = 0 AND test = 'simulation' AND verdict = 'unschedulable' THEN 'ideal missed, met'
            WHEN n_missed = 0 AND verdict = 'unschedulable' AND analyses.horizon_ns IS NOT NULL THEN 'must miss, met'
        END AS kind
    FROM runs JOIN analyses ON analyses.taskset_id = runs.taskset_id AND n_cpus = coalesce(vcpus, 1)
    WHERE outcome IN ('completed', 'timeout') AND validity IS NOT 'disturbed' AND schedulable IS NOT NULL
)
SELECT run_id, taskset_id, tasksets.name AS taskset, kind, group_concat(test, '+') AS tests, min(margin) AS margin, n_missed,
    compared.n_jobs, covered_ns, min(horizon_ns) AS horizon_ns, validity
FROM compared JOIN tasksets USING (taskset_id)
WHERE kind IS NOT NULL AND (kind <> 'must miss, met' OR horizon_ns <= covered_ns)
GROUP BY run_id, kind""",
)
