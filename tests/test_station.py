"""Stations: opened once, closed once, whatever happens; and the next one made ready while the present one is used."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from runner.deadline import Deadline
from runner.errors import BootFailed, GuestDied, HostError, MachineKilled, RunnerError, SessionLost
from runner.hosts.base import HostPhase
from runner.machines.station import MachineKind, Station, Stations
from runner.sessions.simulation import SimulationSession
from runner.specs import Reset
from tests.bench_host import Benches, BenchHost, BoxedSimulation, fault
from tests.fleet_samples import HANG_S, Plan, eventually, failing, faulty_kind, kind_of

KILLED = MachineKilled("the operator killed it")


def taken(stations: Stations, n: int) -> list[Station]:
    """One after the other, as a machine takes them that uses a fresh one for each set."""
    seen = []
    for _ in range(n):
        station = stations.take()
        seen.append(station)
        stations.prepare()
        stations.retire(station)
    return seen


# One station


def test_a_station_opens_host_and_session_and_closes_both(tmp_path: Path) -> None:
    benches = Benches()
    station = Station(benches.kind(), "qemu1", tmp_path)
    station.open()
    assert benches.calls == ["start", "resume"]
    assert station.host is benches.hosts[0]
    assert isinstance(station.session, SimulationSession)
    assert (station.facts["arch"], station.facts["reset"]) == ("arm64", "machine")
    assert station.facts["guest_image_sha256"] == "0123"
    assert (station.n_started, station.identity) == (0, None)
    station.close()
    station.close()
    benches.check_all_stopped()


def test_a_guest_behind_a_mailbox_is_let_go_by_its_session_only(tmp_path: Path) -> None:
    benches = Benches()
    station = Station(benches.kind(session=BoxedSimulation), "qemu1", tmp_path)
    station.open()
    station.pause()
    station.resume()
    station.close()
    assert benches.calls == ["start", "stop"]


@pytest.mark.parametrize("method", ["start", "resume"])
def test_a_host_that_fails_is_released(tmp_path: Path, method: str) -> None:
    benches = Benches(**{method: fault(lambda: BootFailed("no ready"))})
    with pytest.raises(BootFailed):
        Station(benches.kind(), "qemu1", tmp_path).open()
    benches.check_all_stopped()


@pytest.mark.parametrize("error", [SessionLost("nobody there"), ZeroDivisionError("a bug")])
def test_a_session_that_cannot_be_opened_releases_its_host(tmp_path: Path, error: Exception) -> None:
    benches, plan = Benches(), Plan()
    kind = replace(faulty_kind(plan, open=failing(lambda: error)), open_host=benches.open_host)
    with pytest.raises(type(error)):
        Station(kind, "qemu1", tmp_path).open()
    assert plan.calls["close"] == 1
    benches.check_all_stopped()


def test_a_session_that_cannot_be_made_releases_its_host(tmp_path: Path) -> None:
    def broken(host: object) -> SimulationSession:
        raise HostError("no such session")

    benches = Benches()
    with pytest.raises(HostError):
        Station(replace(benches.kind(), open_session=broken), "qemu1", tmp_path).open()
    benches.check_all_stopped()


def test_the_death_of_a_host_reaches_its_session(tmp_path: Path) -> None:
    benches = Benches()
    station = Station(benches.kind(), "qemu1", tmp_path)
    station.open()
    benches.hosts[0].on_death(GuestDied("panicked"))
    with pytest.raises(GuestDied, match="panicked"):
        station.session.stop(Deadline.after(1.0))
    station.close()
    benches.check_all_stopped()


def test_an_abort_before_there_is_anything_to_end_is_not_forgotten(tmp_path: Path) -> None:
    benches = Benches()
    station = Station(benches.kind(), "qemu1", tmp_path)
    station.abort(KILLED)
    with pytest.raises(MachineKilled) as caught:
        station.open()
    assert caught.value is KILLED
    benches.check_all_stopped()
    assert "start" not in benches.calls


def test_an_abort_ends_a_boot(tmp_path: Path) -> None:
    def start(bench: BenchHost) -> None:
        station.abort(KILLED)
        assert bench.killed.is_set()

    benches = Benches(start=start)
    station = Station(benches.kind(), "qemu1", tmp_path)
    with pytest.raises(MachineKilled):
        station.open()
    benches.check_all_stopped()


def test_a_station_without_host_says_where_it_is(tmp_path: Path) -> None:
    station = Station(kind_of(SimulationSession), "sim1", tmp_path)
    station.open()
    station.pause()
    station.resume()
    assert station.host is None
    assert set(station.facts) == {"host_id"}
    station.close()


# One after the other


def test_the_next_one_is_made_ready_while_the_present_one_is_used(tmp_path: Path) -> None:
    benches = Benches()
    with Stations(benches.kind(reset=Reset.TASKSET), "qemu1", tmp_path) as stations:
        first = stations.take()
        stations.prepare()
        stations.prepare()
        eventually(lambda: benches.calls.count("start") == 2)
        assert benches.hosts[0].phase is HostPhase.RUNNING, "the present one goes on"
        stations.retire(first)
        second = stations.take()
        assert second.host is benches.hosts[1]
        assert len(benches.hosts) == 2, "it was not opened again"
    benches.check_all_stopped()


def test_each_is_another_one_and_at_most_two_are_up(tmp_path: Path) -> None:
    most = 0

    def start(bench: BenchHost) -> None:
        nonlocal most
        up = [host for host in benches.hosts if host.phase is not HostPhase.STOPPED]
        most = max(most, len(up))

    benches = Benches(start=start)
    with Stations(benches.kind(reset=Reset.TASKSET), "qemu1", tmp_path) as stations:
        assert len(set(map(id, taken(stations, 20)))) == 20
    assert most <= 2
    benches.check_all_stopped()


def test_what_went_wrong_while_it_was_prepared_is_told_when_it_is_taken(tmp_path: Path) -> None:
    """Once: the next attempt is a new one."""
    benches = Benches(start=fault(lambda: BootFailed("no ready"), 2))
    with Stations(benches.kind(), "qemu1", tmp_path) as stations:
        stations.take()
        stations.prepare()
        with pytest.raises(BootFailed):
            stations.take()
        assert stations.take().host is benches.hosts[2]
    benches.check_all_stopped()


def test_a_failure_that_nobody_comes_for_leaves_nothing(tmp_path: Path) -> None:
    benches = Benches(start=fault(lambda: BootFailed("no ready"), 2))
    with Stations(benches.kind(), "qemu1", tmp_path) as stations:
        stations.take()
        stations.prepare()
    benches.check_all_stopped()
    assert len(benches.hosts) == 2


def test_one_that_cannot_be_closed_is_told_to_who_takes_the_next(tmp_path: Path) -> None:
    benches = Benches(stop=fault(lambda: HostError("QEMU does not die"), 1))
    with Stations(benches.kind(), "qemu1", tmp_path) as stations:
        stations.retire(stations.take())
        with pytest.raises(HostError, match="does not die"):
            stations.take()


def _take_prepare_and_retire(stations: Stations, error: Exception | None = None) -> None:
    with stations:
        first = stations.take()
        stations.prepare()
        stations.retire(first)
        if error is not None:
            raise error


def test_one_that_cannot_be_closed_is_told_at_the_end(tmp_path: Path) -> None:
    """And the others are closed all the same."""
    benches = Benches(stop=fault(lambda: HostError("QEMU does not die"), 1))
    with pytest.raises(HostError, match="does not die"):
        _take_prepare_and_retire(Stations(benches.kind(), "qemu1", tmp_path))
    assert benches.calls.count("stop") == 2
    assert benches.hosts[1].phase is HostPhase.STOPPED


@pytest.mark.parametrize("retired", [False, True])
@pytest.mark.parametrize("prepared", [False, True])
def test_whatever_is_open_at_the_end_is_closed(tmp_path: Path, prepared: bool, retired: bool) -> None:
    benches = Benches()
    with Stations(benches.kind(), "qemu1", tmp_path) as stations:
        station = stations.take()
        if prepared:
            stations.prepare()
        if retired:
            stations.retire(station)
    assert len(benches.hosts) == 1 + prepared
    benches.check_all_stopped()


def test_an_error_in_the_block_is_the_one_that_leaves_it(tmp_path: Path) -> None:
    benches = Benches()
    with pytest.raises(ZeroDivisionError):
        _take_prepare_and_retire(Stations(benches.kind(), "qemu1", tmp_path), ZeroDivisionError("a bug"))
    benches.check_all_stopped()


# Killed


def test_an_abort_ends_the_one_in_use_and_the_one_being_prepared(tmp_path: Path) -> None:
    booting = threading.Event()

    def start(bench: BenchHost) -> None:
        if bench.calls.count("start") == 2:
            booting.set()
            assert bench.killed.wait(HANG_S)

    benches = Benches(start=start)
    with Stations(benches.kind(), "qemu1", tmp_path) as stations:
        station = stations.take()
        stations.prepare()
        assert booting.wait(HANG_S)
        stations.abort(KILLED)
        with pytest.raises(MachineKilled) as caught:
            station.session.stop(Deadline.after(1.0))
        assert caught.value is KILLED
        with pytest.raises(MachineKilled):
            stations.take()
    assert all(host.killed.is_set() for host in benches.hosts)
    benches.check_all_stopped()


def test_after_an_abort_nothing_is_opened(tmp_path: Path) -> None:
    benches = Benches()
    with Stations(benches.kind(), "qemu1", tmp_path) as stations:
        stations.abort(KILLED)
        stations.abort(MachineKilled("again"))
        for _ in range(2):
            stations.prepare()
            with pytest.raises(MachineKilled) as caught:
                stations.take()
            assert caught.value is KILLED
    assert benches.hosts == []


def test_an_abort_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    """A kill races with taking, preparing and retiring, fifty times, each a little later than the last."""
    for number in range(50):
        benches = Benches()
        with Stations(benches.kind(reset=Reset.TASKSET), "qemu1", tmp_path) as stations:
            killer = threading.Timer(number / 10_000, stations.abort, [KILLED])
            killer.start()
            with pytest.raises(RunnerError):
                taken(stations, 1_000_000)
            killer.join()
        benches.check_all_stopped()


def test_a_kind_says_how_often_its_stations_are_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for a fleet of a million task sets."""
    caplog.set_level("INFO", "runner.machine")
    kinds: list[tuple[MachineKind, int]] = [
        (Benches().kind(reset=Reset.TASKSET), 1),
        (Benches().kind(reset=Reset.MACHINE), 5),
    ]
    for kind, n_lines in kinds:
        caplog.clear()
        with Stations(kind, "qemu1", tmp_path) as stations:
            taken(stations, 5)
        told = [record for record in caplog.records if "is up" in record.getMessage()]
        assert n_lines <= len(told) <= n_lines + 1
