"""The table at the end of a run."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import RunnerError
from runner.events import ExitType, Outcome
from runner.model import Provenance
from runner.monitors.summary import MAX_ROWS, SummaryMonitor
from tests.monitor_samples import MS, good, job, run, taskset

BAD = RunnerError("given up")


def printed(monitor: SummaryMonitor, stream: io.StringIO) -> str:
    monitor.close()
    return stream.getvalue()


def test_sets_by_the_utilization_that_was_asked_for():
    stream = io.StringIO()
    monitor = SummaryMonitor(stream)
    for target, slow_ms in ((1.0, 21), (0.5, 10), (0.5, 12), (1.0, 15), (0.75, 20)):
        monitor.__taskset_finish__(run(taskset(target=target)), good(slow_ns=slow_ms * MS))
    assert printed(monitor, stream) == (
        "utilization  task sets  schedulable  not schedulable  jobs  missed  worst R/D\n"
        "-----------------------------------------------------------------------------\n"
        "0.50                 2       2 of 2                0     6       0      0.600\n"
        "0.75                 1       1 of 1                0     3       0      1.000\n"
        "1.00                 2       1 of 2                1     6       1      1.050\n"
        "-----------------------------------------------------------------------------\n"
        "all                  5       4 of 5                1    15       1      1.050\n"
        "\n"
        "N = 5 task sets, 15 jobs. Schedulable: no job that ran missed its deadline; an observation, not a proof.\n"
        "R/D: response time over relative deadline.\n"
    )


def test_variants_apart():
    stream = io.StringIO()
    monitor = SummaryMonitor(stream)
    for name in ("u0.5-0-fifo", "u0.5-0-deadline", "u0.5-1-fifo", "other"):
        monitor.__taskset_finish__(run(taskset(name, target=0.5)), good())
    assert printed(monitor, stream).splitlines()[:-3] == [
        "utilization    task sets  schedulable  not schedulable  jobs  missed  worst R/D",
        "-------------------------------------------------------------------------------",
        "0.50 fifo              2       2 of 2                0     6       0      0.500",
        "0.50 deadline          1       1 of 1                0     3       0      0.500",
        "0.50                   1       1 of 1                0     3       0      0.500",
        "-------------------------------------------------------------------------------",
        "all                    4       4 of 4                0    12       0      0.500",
    ]


def test_written_sets_by_name_and_what_rarely_happens():
    stream = io.StringIO()
    monitor = SummaryMonitor(stream)
    monitor.__taskset_finish__(run(taskset("rm-vs-edf")), good())
    failed = replace(good(), jobs=(job(0, 0, 2 * MS, ExitType.EXIT_ERROR),))
    monitor.__taskset_finish__(run(taskset("broken")), failed)
    monitor.__taskset_bad__(run(taskset("hopeless")), BAD)
    assert printed(monitor, stream).splitlines()[:-3] == [
        "task set   task sets  schedulable  not schedulable  unclear  bad  jobs  missed  worst R/D",
        "-----------------------------------------------------------------------------------------",
        "rm-vs-edf          1       1 of 1                0        0    0     3       0      0.500",
        "broken             1       0 of 1                0        1    0     1       0          -",
        "hopeless           1       0 of 0                0        0    1     0       0          -",
        "-----------------------------------------------------------------------------------------",
        "all                3       1 of 2                0        1    1     4       0      0.500",
    ]


def test_a_refused_set_is_not_schedulable():
    monitor = SummaryMonitor()
    monitor.__taskset_finish__(run(), replace(good(), outcome=Outcome.REJECTED))
    assert monitor.total().n_unschedulable == 1


def test_nothing_to_tell():
    stream = io.StringIO()
    assert printed(SummaryMonitor(stream), stream) == "No task set has ended.\n"


def test_many_names_become_steps_of_utilization():
    monitor = SummaryMonitor()
    for n in range(MAX_ROWS):
        monitor.__taskset_finish__(run(taskset(f"set-{n:02}")), good())
    assert [row.label for row in monitor.rows()] == [f"set-{n:02}" for n in range(MAX_ROWS)]
    for n in range(MAX_ROWS, 1000):
        monitor.__taskset_finish__(run(taskset(f"set-{n:02}")), good())
    (row,) = monitor.rows()
    assert (row.label, row.n_tasksets, row.n_jobs) == ("0.50", 1000, 3000)
    assert monitor.table().startswith("utilization")


targets = st.one_of(st.none(), st.floats(0.01, 3.0, allow_nan=False))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(targets, st.sampled_from(["a", "b", "c"]), st.booleans()), max_size=120))
def test_however_sets_are_grouped_none_is_lost(sets):
    monitor = SummaryMonitor()
    plain = taskset()
    for target, name, bad in sets:
        which = replace(plain, name=name, provenance=Provenance(utilization_target=target))
        if bad:
            monitor.__taskset_bad__(run(which), BAD)
        else:
            monitor.__taskset_finish__(run(which), good())
    rows = monitor.rows()
    assert len(rows) <= max(MAX_ROWS, 3.0 / 0.05 + 2)
    assert sum(row.n_tasksets for row in rows) == len(sets)
    assert sum(row.n_bad for row in rows) == sum(bad for *_, bad in sets)
    assert sum(row.n_schedulable for row in rows) == sum(not bad for *_, bad in sets)
    assert len({row.label for row in rows}) == len(rows)
    assert len(monitor.table().splitlines()) == (len(rows) + 7 if sets else 1)


def test_rows_are_sorted_by_number_not_by_text():
    monitor = SummaryMonitor()
    for target in (10.0, 2.0, 0.125, 0.5):
        monitor.__taskset_finish__(run(taskset(target=target)), good())
    assert [row.label for row in monitor.rows()] == ["0.125", "0.50", "2.00", "10.00"]


@pytest.mark.parametrize(("target", "label"), [(0.1 + 0.2, "0.30"), (1 / 3, "0.333333"), (1.0, "1.00")])
def test_labels_do_not_show_how_floats_are_stored(target, label):
    monitor = SummaryMonitor()
    monitor.__taskset_bad__(run(taskset(target=target)), BAD)
    assert monitor.rows()[0].label == label
