"""The kinds of machine: which session goes with which host, and what their measurements are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.disturbance import DisturbanceLimits
from runner.errors import HostError, UsageError
from runner.events import Validity
from runner.machines.kinds import qemu, qemu_by_mailbox, qemu_over_ssh, simulated, without_host
from runner.machines.station import MachineKind, Station
from runner.qemu.host import QemuHost
from runner.sessions.base import AbstractSession
from runner.sessions.mailbox import MailboxSession
from runner.sessions.simulation import SimulationSession
from runner.sessions.ssh import SshSession
from runner.specs import Clock, QemuSpec, Reach, Reset
from tests.bench_host import PeerHost
from tests.qemu_guests import guest_spec

ON_HOST_CLOCK = QemuSpec(clock=Clock.HOST, vcpus=2)


def no_session(host: object) -> AbstractSession:
    """Never called: what a kind says of itself is known before."""
    raise AssertionError


def test_the_mailbox_is_exact_and_starts_anew_for_each_set() -> None:
    kind = qemu_by_mailbox()
    assert isinstance(kind.open_session(PeerHost()), MailboxSession)
    assert (kind.validity, kind.limits, kind.reset) == (Validity.EXACT, None, Reset.TASKSET)
    assert kind.settings is not None
    assert qemu_by_mailbox(reset=Reset.MACHINE).reset is Reset.MACHINE


def test_over_ssh_nothing_is_exact() -> None:
    """Its packets arrive when this computer sends them: no verdict, no identity; and nothing to judge, as no host's clock rules."""
    kind = qemu_over_ssh()
    assert isinstance(kind.open_session(PeerHost()), SshSession)
    assert (kind.validity, kind.limits, kind.settings, kind.reset) == (None, None, None, Reset.MACHINE)


def test_on_the_hosts_clock_each_measurement_is_judged() -> None:
    kind = qemu_over_ssh(ON_HOST_CLOCK)
    assert (kind.validity, kind.limits, kind.settings) == (None, DisturbanceLimits(), None)
    strict = DisturbanceLimits(steal_ppm=0)
    assert qemu(replace(ON_HOST_CLOCK, reach=Reach.SSH), no_session, limits=strict).limits is strict


def test_limits_are_for_the_hosts_clock() -> None:
    assert qemu(QemuSpec(), no_session, limits=DisturbanceLimits()).limits is None


def test_what_is_simulated_is_computed() -> None:
    kind = simulated()
    assert kind.open_host is None
    assert (kind.validity, kind.limits) == (Validity.COMPUTED, None)
    assert kind.settings is not None
    assert list(kind.settings()) == ["simulator"]
    assert isinstance(kind.open_session(None), SimulationSession)


def test_nothing_is_known_of_sessions_of_ones_own() -> None:
    kind = without_host(lambda host: SimulationSession())
    assert (kind.open_host, kind.validity, kind.limits, kind.settings) == (None, None, None, None)


@pytest.mark.parametrize("kind", [qemu_by_mailbox(), qemu_over_ssh()], ids=["mailbox", "ssh"])
def test_a_session_to_a_guest_needs_one(kind: MachineKind) -> None:
    with pytest.raises(UsageError, match="needs a host"):
        kind.open_session(None)


@pytest.mark.parametrize("spec", [ON_HOST_CLOCK, QemuSpec(vcpus=2), QemuSpec(cpu_mips=100.0)])
def test_a_contradiction_is_refused_before_anything_is_opened(spec: QemuSpec, tmp_path: Path) -> None:
    kind = qemu_by_mailbox(spec)
    assert kind.open_host is not None
    with pytest.raises(UsageError):
        kind.open_host("qemu1", tmp_path)
    assert not list(tmp_path.iterdir())


# What a measurement depends on


def settings_of(spec: QemuSpec, reset: Reset = Reset.TASKSET) -> dict[str, object]:
    kind = qemu_by_mailbox(spec, reset=reset)
    assert kind.settings is not None
    return dict(kind.settings())


@pytest.mark.guest
def test_settings_change_with_whatever_the_guest_can_feel() -> None:
    spec = guest_spec()
    base = settings_of(spec)
    assert base == settings_of(replace(spec, boot_timeout_s=9.0, start_timeout_s=9.0)), "it feels no patience"
    others = [
        settings_of(guest_spec("amd64")),
        settings_of(spec, Reset.MACHINE),
        *(
            settings_of(replace(spec, **change))
            for change in (
                {"cpu_mips": 250.0},
                {"memory_mib": 256},
                {"mailbox_mib": 64},
                {"snapshot": False},
            )
        ),
    ]
    assert len({str(sorted(settings.items())) for settings in (base, *others)}) == 1 + len(others)


@pytest.mark.guest
def test_settings_are_found_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every machine of the fleet: what the image was when the run began."""
    kind = qemu_by_mailbox(guest_spec())
    assert kind.settings is not None
    before = kind.settings()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kind.settings() is before
    with pytest.raises(HostError, match="QEMU"):
        settings_of(guest_spec())


@pytest.mark.guest
@pytest.mark.parametrize("kind", [qemu_by_mailbox, qemu_over_ssh])
def test_host_and_session_of_a_kind_understand_each_other(kind, tmp_path: Path) -> None:
    station = Station(kind(guest_spec()), "qemu1", tmp_path)
    station.open()
    try:
        assert isinstance(station.host, QemuHost)
        assert station.session.facts["kernel_release"] == station.host.facts.kernel_release
    finally:
        station.close()
