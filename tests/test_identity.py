"""The identity of a measurement: different for whatever a guest could feel, the same for everything else."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from runner.errors import TaskSetError, UsageError
from runner.identity import executable_digests, measurement_identity
from runner.model import OverrunPolicy, Task, TaskSet
from tests.monitor_samples import MS, taskset
from tests.strategies import tasksets

SETTINGS: dict[str, str | int | float | None] = {
    "guest_image_sha256": "ab",
    "icount_shift": 3,
    "cpu_mips": 125.0,
    "qemu_binary": None,
}


def identity(which: TaskSet, **more) -> str:
    """With a digest for whatever executable there is, derived from its path."""
    paths = {str(task.workload_args.get("path")) for task in which.tasks}
    files = {path: hashlib.sha256(path.encode()).hexdigest() for path in paths}
    return measurement_identity(which, SETTINGS, **{"files": files, **more})


@given(tasksets())
def test_names_and_provenance_do_not_count(which: TaskSet) -> None:
    renamed = replace(which, name="another", tasks=tuple(replace(task, name="x") for task in which.tasks))
    assert identity(renamed) == identity(which)
    assert len(identity(which)) == 32
    assert int(identity(which), 16) >= 0


@given(tasksets(), tasksets())
def test_it_tells_apart_whatever_the_id_of_a_set_tells_apart(one: TaskSet, other: TaskSet) -> None:
    assert (identity(one) == identity(other)) == (one.taskset_id == other.taskset_id)


@pytest.mark.parametrize(
    "changed",
    [
        replace(taskset(), stop_ns=5 * MS),
        replace(taskset(), admission_control=False),
        replace(taskset(), overrun_policy=OverrunPolicy.KILL_AND_SKIP),
        replace(taskset(), tasks=taskset().tasks[::-1]),
        replace(taskset(), tasks=taskset().tasks[:1]),
        taskset(n=1),
    ],
)
def test_what_decides_the_execution_counts(changed: TaskSet) -> None:
    assert identity(changed) != identity(taskset())


def test_every_setting_counts_and_their_order_does_not() -> None:
    def with_settings(settings: dict[str, str | int | float | None]) -> str:
        return measurement_identity(taskset(), settings, files={})

    changes = [{**SETTINGS, name: f"not {value}"} for name, value in SETTINGS.items()]
    fewer = [{key: value for key, value in SETTINGS.items() if key != name} for name in SETTINGS]
    found = [with_settings(settings) for settings in (SETTINGS, *changes, *fewer, {**SETTINGS, "more": 1})]
    assert len(set(found)) == len(found)
    assert with_settings(dict(reversed(SETTINGS.items()))) == found[0]


def test_what_ran_before_on_the_guest_counts() -> None:
    fresh = identity(taskset())
    second = identity(taskset(), predecessor=fresh)
    assert len({fresh, second, identity(taskset(), predecessor=second)}) == 3


def test_an_executable_counts_by_its_content(tmp_path: Path) -> None:
    def measured(path: Path) -> str:
        task = Task(period_ns=MS, workload="executable", workload_args={"path": str(path), "argv": ("1",)})
        which = TaskSet((task, replace(task, period_ns=2 * MS)))
        digests = executable_digests(which)
        assert digests == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
        return measurement_identity(which, SETTINGS, files=digests)

    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(b"\x7fELF 1")
    there.write_bytes(b"\x7fELF 1")
    before = measured(here)
    assert measured(there) == before, "the same program in another place"
    here.write_bytes(b"\x7fELF 2")
    assert measured(here) != before, "another program in the same place"


def test_a_set_without_executables_needs_no_files() -> None:
    assert executable_digests(taskset()) == {}


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/tmp"])
def test_an_executable_that_cannot_be_read_makes_the_set_bad(path: str) -> None:
    which = TaskSet((Task(period_ns=MS, workload="executable", workload_args={"path": path}),))
    with pytest.raises(TaskSetError, match="cannot be read") as caught:
        executable_digests(which)
    assert caught.value.next_step == "correct workload_args.path"


def test_an_executable_of_unknown_content_is_refused() -> None:
    which = TaskSet((Task(period_ns=MS, workload="executable", workload_args={"path": "/bin/true"}),))
    with pytest.raises(UsageError, match="content of /bin/true is not known"):
        measurement_identity(which, SETTINGS, files={})


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
def test_a_setting_that_equals_nothing_is_refused(value) -> None:
    with pytest.raises(UsageError, match="cannot be told apart"):
        measurement_identity(taskset(), {"speed": value}, files={})


def test_it_stays_what_it_is() -> None:
    """A run finds what another version measured; a change of this line needs a new IDENTITY_VERSION."""
    assert measurement_identity(taskset(), {"arch": "arm64"}, files={}) == "b9c053dc6f1d3461afdde4e61bed64b3"
