"""A config is data: code is named by `_target_` in three places, and nowhere else does anything act."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.exit_codes import ExitCode
from tests.cli import run_cli

#: Leaves a file when it is imported, and another one when it is called.
TRAP = """
from pathlib import Path
Path("imported").touch()

def sprung(*args, **kwargs):
    Path("sprung").touch()
"""
CALL = "{_target_: trap.sprung}"


def refused(folder: Path, *arguments: str) -> str:
    (folder / "trap.py").write_text(TRAP)
    done = run_cli(folder, *arguments)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "imported").exists()
    assert not (folder / "sprung").exists()
    return done.stderr


HIDDEN = {
    "a task set": (["tasksets=explicit", f"tasksets.tasksets=[{CALL}]"], "tasksets.tasksets[0]._target_"),
    "a task": (
        [
            "tasksets=explicit",
            f"tasksets.tasksets=[{{tasks: [{{period: 9ms, wcet: 1ms, workload_args: {CALL}}}]}}]",
        ],
        "tasksets.tasksets[0].tasks[0].workload_args._target_",
    ),
    "a generator's argument": ([f"tasksets.periods=[{CALL}]"], "tasksets.periods"),
    "a session's argument": (
        [f"machines.session.realtime_factor={CALL}"],
        "machines.session.realtime_factor",
    ),
    "a session's new argument": ([f"+machines.session.x={CALL}"], "machines.session.x._target_"),
    "a monitor's argument": ([f"+monitors.summary.x={CALL}"], "monitors.summary"),
    "a reference": (
        ["+monitors.own._target_=own.Own", "+monitors.own.x=${monitors.other}", f"+monitors.other={CALL}"],
        "monitors.own.x._target_",
    ),
    "QEMU": (["+machines.qemu._target_=trap.sprung"], "machines.qemu._target_"),
    "the machines' policy": (["+machines.policy._target_=trap.sprung"], "machines.policy._target_"),
    "the machines": (["+machines._target_=trap.sprung"], "machines._target_"),
    "the run": (["+_target_=trap.sprung"], "_target_"),
    "positional arguments": (["+machines.session._args_=[1]"], "machines.session._args_"),
    "no call at all": (["+monitors.summary._partial_=true"], "_partial_"),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_code_is_not_named_by_the_way(tmp_path, case):
    arguments, key = HIDDEN[case]
    assert key in refused(tmp_path, "machines=simulation", *arguments)


FILES = {
    "a call": "# @package _global_\nrepeat: !!python/object/apply:trap.sprung []\n",
    "an object": "# @package _global_\nmonitors: !!python/object:trap.Thing {}\n",
    "a module": "# @package _global_\nmonitors: !!python/module:trap\n",
    "a name": "# @package _global_\nmonitors: !!python/name:trap.sprung\n",
}


@pytest.mark.parametrize("case", FILES)
def test_tags_in_a_file_do_nothing(tmp_path, case):
    path = tmp_path / "conf" / "experiment" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILES[case])
    stderr = refused(tmp_path, "--config-dir", "conf", "experiment=own", "machines=simulation")
    assert "own.yaml:2" in stderr
    assert "tag" in stderr
