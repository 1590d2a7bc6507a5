"""A share of the sets is measured by two workers: nothing is lost or doubled by it, and who is wrong is found out."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import simulated
from runner.cluster.checks import Checks, Held, WorkersDisagree
from runner.cluster.messages import Report
from runner.cluster.reports import run_of
from runner.deadline import Deadline
from runner.distributor import Distributor
from runner.errors import InfrastructureError, MachineKilled, RunnerError
from runner.events import Event, JobEvent, Outcome, RunResult, Validity
from runner.machines.kinds import without_host
from runner.machines.station import MachineKind
from runner.monitors.channel import MonitorChannel
from runner.queue.lease import Job, Lease
from runner.queue.taskset_queue import TaskSetQueue
from runner.sessions.simulation import SimulationSession
from tests.cluster_samples import WAIT_S, Tables, alone, guest_kind, in_process, sets


class Liar(SimulationSession):
    """Says that every job was over a nanosecond later than it was."""

    ideal = True

    def events(self, deadline: Deadline) -> Iterator[Event]:
        for event in super().events(deadline):
            if isinstance(event, JobEvent) and event.job.finish_ns is not None:
                yield JobEvent(event.job._replace(finish_ns=event.job.finish_ns + 1))
            else:
                yield event


def lying_kind(image: Path | None) -> MachineKind:
    return without_host(lambda host: Liar(), ideal=True)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_sample_is_measured_by_two_workers_and_counts_once(tmp_path, share):
    with in_process(tmp_path, "a", "b", checked_share=share) as (crew, _):
        tables = Tables()
        with Distributor(4, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
            fleet.add_job(sets(200), tables)
            assert fleet.wait(WAIT_S)
            state = fleet.get_distributor_state()
    assert (state.n_done, state.n_bad, state.n_running) == (200, 0, 0)
    assert set(tables.times.values()) == {1}
    assert tables.tables == alone(simulated(), 200, tmp_path)
    sample = [one for one in sets(200).variants() if int(one.taskset_id, 16) / 2**64 < share]
    assert crew.checks.n_checked + crew.checks.n_unchecked == len(sample)
    assert crew.checks.n_checked >= len(sample) // 2  # the very last may find nobody


def test_a_worker_that_measures_something_else_ends_the_run(tmp_path):
    with in_process(tmp_path, "a", "b", kinds={"b": lying_kind}, checked_share=1.0) as (crew, _):
        tables = Tables()
        with Distributor(2, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
            fleet.add_job(sets(50), tables)
            with pytest.raises(WorkersDisagree) as caught:
                fleet.wait(WAIT_S)
    error = caught.value
    first = next(one for one in sets(50).variants() if one.taskset_id in error.what)
    for word in (first.name, "a.qemu1", "b.qemu1"):
        assert word in error.what
    for word in ("host_cpu=", "host_kernel=", "SHA-256", "finish_ns="):
        assert error.evidence.count(word) == 2
    assert error.log_path is not None
    assert (error.log_path / "experiment" / "alone.yaml").exists()
    assert f"--config-dir={error.log_path.absolute()} experiment=alone" in error.next_step
    state = fleet.get_distributor_state()
    assert not tables.tables, "what nobody agrees on is not recorded"
    assert (state.n_done, state.n_bad, state.n_running) == (0, 0, 0), "all of it is still to be done"


def test_with_one_worker_sets_are_taken_as_they_are_and_that_is_said_once(tmp_path, caplog):
    with in_process(tmp_path, "a", checked_share=1.0) as (crew, _):
        tables = Tables()
        with (
            caplog.at_level(logging.WARNING, "runner.cluster"),
            Distributor(3, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet,
        ):
            fleet.add_job(sets(600), tables)
            assert fleet.wait(WAIT_S)
    assert set(tables.times.values()) == {1}
    assert (len(tables.times), crew.checks.n_checked, crew.checks.n_unchecked) == (600, 0, 600)
    assert sum("checked_share" in one.getMessage() for one in caplog.records) == 1


def test_a_second_measurement_that_is_lost_is_made_again_or_done_without(tmp_path):
    with in_process(tmp_path, "a", "b", "c", checked_share=1.0) as (crew, (first, second, _)):
        tables = Tables({40: first.cut.set, 80: second.cut.set})
        with Distributor(6, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
            fleet.add_job(sets(300), tables)
            assert fleet.wait(WAIT_S)
    assert first.lost is not None
    assert set(tables.times.values()) == {1}
    assert tables.tables == alone(simulated(), 300, tmp_path)


@pytest.mark.parametrize("end", ["shut_down_all_machines", "kill_all_machines"])
def test_what_waits_for_a_second_worker_holds_up_no_end(tmp_path, end):
    with in_process(tmp_path, "a", "b", factor=4.0, checked_share=1.0) as (crew, _):
        stop = threading.Event()
        tables = Tables({5: stop.set})
        with Distributor(3, machine_limit=20, kind=simulated(), crew=crew, folder=tmp_path) as fleet:
            fleet.add_job(sets(1000), tables)
            assert stop.wait(WAIT_S)
            getattr(fleet, end)()
            assert fleet.wait(WAIT_S)
            state = fleet.get_distributor_state()
    assert (state.n_running, state.n_bad) == (0, 0)
    assert state.n_done == len(tables.times) < 1000
    assert set(tables.times.values()) == {1}


@pytest.mark.guest
def test_guests_of_another_speed_are_found_out(tmp_path):
    """A worker that was told another `cpu_mips` than the rest measures by the same rules, and something else."""

    def slower(image: Path | None) -> MachineKind:
        return guest_kind(image, cpu_mips=62.5)

    with (
        in_process(tmp_path, "a", "b", kinds={"a": guest_kind, "b": slower}, checked_share=1.0) as (crew, _),
        Distributor(2, machine_limit=20, kind=guest_kind(None), crew=crew, folder=tmp_path) as fleet,
    ):
        fleet.add_job(sets(4))
        with pytest.raises(WorkersDisagree, match=r"different job tables") as caught:
            fleet.wait(WAIT_S)
    assert caught.value.evidence.count("qemu_version=") == 2


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["hold", "take", "agree", "lost", "killed", "failed", "alone", "hungry", "attend", "leave"]
        ),
        st.sampled_from("abc"),
    ),
    max_size=60,
)
ERRORS = {"killed": MachineKilled("by the operator"), "failed": InfrastructureError("its guest died")}


def leases() -> Iterator[Lease]:
    queue = TaskSetQueue(Job(sets(60), MonitorChannel((), lambda call: None)))
    while (lease := queue.acquire()) is not None:
        yield lease


def report(error: RunnerError | None = None) -> Report:
    return Report(
        number=1,
        machine="qemu1",
        position=1,
        recovery=None,
        identity=None,
        facts={},
        started_utc=datetime.now(UTC),
        result=RunResult(outcome=Outcome.COMPLETED, validity=Validity.COMPUTED),
        error=error,
    )


@given(OPERATIONS)
def test_whatever_happens_each_result_that_waits_is_handed_on_once(operations):
    checks, source = Checks(1.0), leases()
    held: dict[int, str] = {}
    settled: Counter[int] = Counter()
    taken: list[tuple[str, Held]] = []
    for what, worker in operations:
        match what:
            case "hold":
                lease = next(source)
                assert checks.wants(lease, report())
                held[lease.set_idx] = worker
                run = run_of(lease, report(), worker)
                settle = partial(settled.update, [lease.set_idx])
                checks.hold(Held(lease=lease, run=run, report=report(), worker=worker, settle=settle))
            case "take":
                if (one := checks.take(worker)) is not None:
                    assert one.worker != worker
                    taken.append((worker, one))
            case "alone" | "hungry":
                checks.settle_alone(hungry=what == "hungry")
            case "attend":
                checks.attend({worker, "a"})
            case "leave":
                checks.leave(worker)
            case _ if taken:
                by, one = taken.pop(0)
                if what == "lost":
                    checks.give_back(one)
                else:
                    answer = report(ERRORS.get(what))
                    assert checks.compare(one, run_of(one.lease, answer, by), answer, None) is None
    under_way = {one.lease.set_idx for _, one in taken}
    checks.attend("")
    checks.settle_alone(hungry=False)
    assert set(settled.values()) <= {1}
    assert sorted([*settled, *under_way]) == sorted(held)
    assert checks.n_checked + checks.n_unchecked == len(settled)
