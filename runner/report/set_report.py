"""The schedule view: one task set, job by job."""

from __future__ import annotations

from functools import partial

import numpy as np

from runner.report import job_charts
from runner.report.canvas import Chart
from runner.report.gantt import MAX_JOBS, gantt_chart, shown_until_ns
from runner.report.page import Page, Section, Table
from runner.report.schedule import Job, Schedule
from runner.report.set_charts import name_of_test
from runner.report.statistics import Numbers
from runner.text.log_lines import clean
from runner.units import NS_PER_MS

_MAX_TASKS = 12


def set_page(schedule: Schedule, from_ns: int, trace_name: str) -> Page:
    """The page of one set."""
    run = schedule.run
    facts = [
        f"task set {schedule.taskset.taskset_id}",
        f"run {run.run_id} on {run.machine}, {run.scheduler}, {run.overrun_policy}",
        f"{run.outcome}, {run.validity}",
    ]
    return Page(
        title=f"Schedule of {schedule.taskset.name}",
        subtitle=", ".join(facts),
        numbers=(
            ("tasks", str(len(schedule.tasks))),
            (
                "utilization",
                "-" if schedule.taskset.utilization is None else f"{schedule.taskset.utilization:.4f}",
            ),
            ("hyperperiod, ms", _ms(schedule.taskset.hyperperiod_ns)),
            ("jobs", str(run.n_jobs)),
            ("jobs missed", str(run.n_missed)),
        ),
        sections=(
            _gantt(schedule, from_ns, trace_name),
            _tasks(schedule),
            _distributions(schedule),
            _verdicts(schedule),
            _jobs(schedule),
        ),
    )


def _gantt(schedule: Schedule, from_ns: int, trace_name: str) -> Section:
    until_ns = shown_until_ns(schedule)
    shown = min(len(schedule.jobs), MAX_JOBS)
    caption = (
        f"N = {shown} of {schedule.run.n_jobs} jobs, up to {_ms(until_ns)} ms. Arrows up: releases; down: deadlines; crosses: misses."
        " When a job ran follows from starts and finishes (whoever started last runs), checked against the CPU time that it used."
    )
    if schedule.n_unknown:
        caption += f" Of {schedule.n_unknown} jobs it does not follow: hatched from start to finish, in which they did not always run."
    if shown < (schedule.run.n_jobs or 0):
        caption += " --from and --to show other times."
    caption += f" The same for ui.perfetto.dev: {trace_name}."
    return Section(
        name="schedule",
        title="Schedule",
        caption=caption,
        charts=(gantt_chart(schedule, from_ns),),
        scroll=True,
    )


def _tasks(schedule: Schedule) -> Section:
    rows = []
    for task in schedule.tasks:
        own = [job for job in schedule.jobs if job.task_idx == task.task_idx]
        worst = max((job.response_ns for job in own if job.response_ns is not None), default=None)
        times = (task.wcet_ns, task.period_ns, task.deadline_ns, worst, task.bound_ns)
        counts = (len(own), sum(bool(job.missed) for job in own), sum(job.preemptions or 0 for job in own))
        rows.append((task.name, task.policy, str(task.priority_rank), *map(_ms, times), *map(str, counts)))
    header = (
        "task",
        "policy",
        "rank",
        "C ms",
        "T ms",
        "D ms",
        "worst R ms",
        "bound ms",
        "jobs",
        "missed",
        "preemptions",
    )
    return Section(
        name="tasks",
        title="Tasks",
        caption=f"N = {len(schedule.jobs)} jobs; the most urgent task first. Bound: the worst response time by analysis.",
        tables=(Table("tasks", header, tuple(rows), texts=2),),
        wide=True,
    )


def _distributions(schedule: Schedule) -> Section:
    tasks = []
    for task in schedule.tasks[:_MAX_TASKS]:
        own: Numbers = np.array(
            [
                job.response_ns
                for job in schedule.jobs
                if job.task_idx == task.task_idx and job.response_ns is not None
            ],
            dtype=np.float64,
        )
        bound_ms = None if task.bound_ns is None else task.bound_ns / NS_PER_MS
        deadline_ms = None if task.deadline_ns is None else task.deadline_ns / NS_PER_MS
        tasks.append((f"{clean(task.name, 40)}, N = {len(own)}", own / NS_PER_MS, bound_ms, deadline_ms))
    chart = Chart(
        name=f"response-times-{schedule.taskset.taskset_id}",
        draw=partial(job_charts.draw_response_times, tasks=tasks),
        what="Distribution function of the response times of each task, with bound and deadline",
        aspect=0.08 + 0.16 * -(-len(tasks) // 2),
        width_in=9.0,
    )
    more = (
        ""
        if len(tasks) == len(schedule.tasks)
        else f" The {_MAX_TASKS} most urgent of {len(schedule.tasks)} tasks."
    )
    return Section(
        name="response-times",
        title="Response times",
        caption=f"Share of a task's finished jobs that took no longer; its bound by analysis and its deadline as lines.{more}",
        charts=(chart,),
        wide=True,
    )


def _verdicts(schedule: Schedule) -> Section:
    rows = tuple(
        (name_of_test(one.test, one.n_cpus), one.verdict, one.exactness) for one in schedule.verdicts
    )
    empty = "" if rows else "The data hold no analyses of this set."
    table = Table("tests", ("test", "verdict", "test is"), rows, texts=3)
    return Section(
        name="analyses", title="What analysis says", empty=empty, tables=(table,) if rows else (), wide=True
    )


def _jobs(schedule: Schedule) -> Section:
    names = {task.task_idx: task.name for task in schedule.tasks}
    rows = tuple(_job(job, names.get(job.task_idx, "?")) for job in schedule.jobs[:MAX_JOBS])
    header = (
        "task",
        "exit",
        "job",
        "release",
        "start",
        "finish",
        "deadline",
        "CPU time",
        "response",
        "preemptions",
        "missed",
    )
    return Section(
        name="jobs",
        title="Jobs",
        caption=f"The first {len(rows)} of {schedule.run.n_jobs}, by release; times in ms.",
        tables=(Table("jobs", header, rows, texts=2),),
        wide=True,
    )


def _job(job: Job, name: str) -> tuple[str, ...]:
    times = (job.release_ns, job.start_ns, job.finish_ns, job.deadline_abs_ns, job.exec_ns, job.response_ns)
    missed = "-" if job.missed is None else "yes" if job.missed else "no"
    preemptions = "-" if job.preemptions is None else str(job.preemptions)
    return (name, job.exit_type, str(job.job_idx), *map(_ms, times), preemptions, missed)


def _ms(time_ns: int | None) -> str:
    return "-" if time_ns is None else f"{time_ns / NS_PER_MS:.6g}"
