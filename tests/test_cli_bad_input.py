"""What is wrong is said on one screen, with the key or cause and the next step, before anything is spawned."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runner.exit_codes import ExitCode
from runner.qemu.image import FILE_NAMES, METADATA_NAME, GuestImage
from tests.cli import environment, run_cli

SCREEN_LINES = 15


def assert_refused(done: subprocess.CompletedProcess[str], code: ExitCode, *needles: str) -> None:
    """One screen that says it all, the exit code, and no trace of a machine."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) <= SCREEN_LINES, done.stderr
    assert done.stderr.startswith("error: ")
    assert "  next:  " in done.stderr
    for needle in needles:
        assert needle in done.stderr


def one_task(task: str) -> list[str]:
    return ["tasksets=explicit", f"tasksets.tasksets=[{{tasks: [{{wcet: 1ms, n_jobs: 2, {task}}}]}}]"]


IDEAL = "machines=simulation"
#: Arguments, and what the message has to name: the key in full or the cause, and the next step.
WRONG = {
    "misspelt key": (["machines.cuont=2"], ["machines.cuont", "did you mean machines.count?"]),
    "misspelt key of a group's file": (["tasksets.sed=1"], ["tasksets.sed", "did you mean tasksets.seed?"]),
    "misspelt key without a schema": (
        [IDEAL, "machines.session.realtime_facto=1"],
        ["did you mean machines.session.realtime_factor?"],
    ),
    "misspelt group": (["tasksts=uunifast"], ["tasksts", "did you mean tasksets?"]),
    "key without its group": (["count=2"], ["no key count", "did you mean machines.count?"]),
    "key added by force": (["+machines.cuont=2"], ["no key machines.cuont"]),
    "no such option": (
        ["machines=nosuch"],
        ["machines has no option 'nosuch'", "choose one of: amd64, arm64"],
    ),
    "no such option of several": (["monitors=[sqlit]"], ["monitors has no option", "did you mean sqlite?"]),
    "no option at all": (["experiment=null"], ["Config group", "--help"]),
    "option given by force": (["+tasksets=hey"], ["tasksets is chosen already", "without the +"]),
    "text for a number": (["machines.count=two"], ["machines.count", "'two'", "Integer"]),
    "fraction for a whole number": (["tasksets.seed=1.5"], ["tasksets.seed", "'1.5'"]),
    "number for a section": (["machines.qemu=3"], ["machines.qemu", "int"]),
    "sweep without --multirun": (["tasksets.seed=1,2"], ["tasksets.seed=1,2", "--multirun"]),
    "broken override": (["machines.count==2"], ["'machines.count==2' is no override", "key=value"]),
    "reference to nothing": (["tasksets.seed=${nosuch}"], ["tasksets.seed", "'nosuch' not found"]),
    "missing value": (["tasksets=explicit"], ["tasksets.tasksets has no value", "set it"]),
    "period without unit": (["tasksets.periods=[20]"], ["tasksets.periods[0] is '20', without a unit"]),
    "zero period": (one_task("period: 0ms"), ["tasksets.tasksets[0].tasks[0]", "period_ns is 0"]),
    "impossible utilization": (["tasksets.utilizations=[0.5, 9]"], ["tasksets.utilizations[1] is 9"]),
    "unknown policy": (["tasksets.policy=nosuch"], ["tasksets.policy is 'nosuch'", "deadline"]),
    "unknown workload": (
        one_task("period: 9ms, workload: nosuch"),
        ["workload is 'nosuch'", "spin, hey", "tasks[0]"],
    ),
    "unknown key of a task": (
        one_task("peroid: 9ms"),
        ["tasksets.tasksets[0].tasks[0].peroid", "did you mean 'period'?"],
    ),
    "runtime beyond SCHED_DEADLINE's deadline": (
        one_task("period: 500us, policy: deadline"),
        ["tasksets.tasksets[0].tasks[0]", "more than the deadline", "shorten the runtime"],
    ),
    "executable that is not there": (
        one_task("period: 9ms, workload: executable, workload_args: {path: /nonexistent}"),
        ["/nonexistent cannot be read", "path"],
    ),
    "more machines than the limit": (["machines.count=8"], ["machines.count is 8", "the limit is 7"]),
    "negative count": (["machines.count=-1"], ["machines.count is -1", "0 … 7"]),
    "no patience": (["machines.policy.max_tries=0"], ["machines.policy.max_tries is 0"]),
    "instruction-counted time with two CPUs": (
        ["machines.qemu.vcpus=2"],
        ["machines.qemu.vcpus", "machines.qemu.clock=host"],
    ),
    "the host's clock for a session that has a mailbox": (
        ["machines.qemu.clock=host"],
        ["the mailbox is for clock=icount", "machines.session", "machines=host_clock"],
    ),
    "a speed that no processor has": (
        ["machines.qemu.cpu_mips=100"],
        ["no processor of 100 MIPS", "machines.qemu.cpu_mips", "62.5"],
    ),
    "text for a speed": (["machines.qemu.cpu_mips=fast"], ["machines.qemu.cpu_mips", "'fast'"]),
    "the speed in QEMU's form": (["machines.qemu.icount_shift=3"], ["machines.qemu.icount_shift"]),
    "a mailbox that cannot be mapped": (
        ["machines.qemu.mailbox_mib=3"],
        ["machines.qemu.mailbox_mib", "power of two"],
    ),
    "unknown reset": (["machines.reset=never"], ["machines.reset", "'never'", "taskset"]),
    "no measurement at all": (["repeat=0"], ["repeat is 0", "1 … 1000"]),
    "an earlier run that is not there": (["reuse=nosuch"], ["nosuch", "reuse"]),
    "a limit below nothing": (
        ["machines.disturbance.steal_ppm=-1"],
        ["machines.disturbance.steal_ppm is -1", "0 or more"],
    ),
    "a reserve below nothing": (
        ["machines.admission.memory_reserve_mib=-1"],
        ["machines.admission.memory_reserve_mib is -1", "0 or more"],
    ),
    "a CPU that the machines do not have": (
        one_task("period: 9ms, cpu_affinity: [1]"),
        ["cpu_affinity names CPU 1", "machines.qemu.vcpus"],
    ),
    "unknown architecture": (["machines.qemu.arch=vax"], ["'vax'", "machines.qemu.arch", "arm64, amd64"]),
    "no such port": (["machines.qemu.ssh_port=70000"], ["machines.qemu.ssh_port is 70000", "65535"]),
    "no such port of a Genode host": (
        ["machines.qemu.genode_port=0"],
        ["machines.qemu.genode_port is 0", "null for none"],
    ),
    "module that is not there": (
        ["tasksets._target_=nosuch.Thing"],
        ["nosuch.Thing cannot be made", "PYTHONPATH"],
    ),
    "no task sets": (
        ["tasksets=custom", "tasksets._target_=datetime.date.today"],
        ["tasksets._target_ made a date", "variants()"],
    ),
    "no monitor": (
        [IDEAL, "+monitors.own._target_=datetime.date.today"],
        ["monitors.own._target_", "no monitor", "AbstractMonitor"],
    ),
    "wrong argument of a monitor": (
        [
            IDEAL,
            "+monitors.stdout._target_=runner.monitors.stdout.StdoutMonitor",
            "+monitors.stdout.nosuch=1",
        ],
        ["monitors.stdout", "nosuch", "arguments"],
    ),
    "no session": (
        [IDEAL, "machines.session._target_=pathlib.Path"],
        ["machines.session._target_", "no session", "AbstractSession"],
    ),
    "no session at all": (["machines=custom"], ["machines.session._target_", "name a class"]),
    "wrong argument of a session": ([IDEAL, "+machines.session.nosuch=2"], ["machines.session", "'nosuch'"]),
    "wrong value for a session": (
        [IDEAL, "machines.session.realtime_factor=0"],
        ["realtime_factor is 0", "machines.session"],
    ),
    "session that takes no host": (
        ["machines.session._target_=runner.sessions.simulation.SimulationSession"],
        ["machines.session", "called with the host"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_config_is_refused_before_anything_is_spawned(tmp_path, case):
    arguments, needles = WRONG[case]
    done = run_cli(tmp_path, *arguments)
    assert_refused(done, ExitCode.USAGE, *needles)
    assert not (tmp_path / "run" / "machines").exists()
    assert done.stdout == ""


#: Files of a user's own config folder, and what the message has to name.
WRONG_FILES = {
    "misspelt key": (
        "# @package _global_\nmachines: {cuont: 2}\n",
        ["experiment/own.yaml", "no key machines.cuont", "did you mean machines.count?"],
    ),
    "wrong type": (
        "# @package _global_\nmachines: {count: two}\n",
        ["experiment/own.yaml", "machines.count", "'two'"],
    ),
    "misspelt option": (
        "# @package _global_\ndefaults: [override /tasksets: explict]\n",
        ["tasksets has no option 'explict'", "did you mean explicit?"],
    ),
    "no YAML": ("# @package _global_\nmachines: {count: 2\n", ["own.yaml:3", "no valid YAML"]),
    "no package line": (
        "machines: {count: 2}\n",
        ["experiment/own.yaml", "# @package _global_"],
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_config_file_is_refused_by_name(tmp_path, case):
    content, needles = WRONG_FILES[case]
    path = tmp_path / "conf" / "experiment" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    done = run_cli(tmp_path, "--config-dir", "conf", "experiment=own")
    assert_refused(done, ExitCode.USAGE, *needles)


def test_unknown_option_shows_the_usage(tmp_path):
    done = run_cli(tmp_path, "--nosuch")
    assert done.returncode == ExitCode.USAGE
    assert "unrecognized arguments: --nosuch" in done.stderr
    assert len(done.stderr.splitlines()) <= SCREEN_LINES


def test_folder_of_another_run_is_not_overwritten(tmp_path):
    assert run_cli(tmp_path, IDEAL, "tasksets.sets_per_utilization=1").returncode == ExitCode.OK
    before = (tmp_path / "run" / "results.sqlite").read_bytes()
    done = run_cli(tmp_path, IDEAL)
    assert_refused(done, ExitCode.USAGE, "holds another run", "hydra.run.dir")
    assert (tmp_path / "run" / "results.sqlite").read_bytes() == before


def test_run_folder_that_cannot_be_made_is_the_hosts_fault(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_cli(tmp_path, IDEAL, "hydra.run.dir=file/run")
    assert_refused(done, ExitCode.HOST, "file/run", "hydra.run.dir")


def test_qemu_that_is_not_there_names_the_package(tmp_path):
    done = run_cli(tmp_path, "machines.qemu.qemu_binary=nosuch")
    assert_refused(done, ExitCode.HOST, "QEMU is missing", "'nosuch'", "python -m host_setup packages")


def test_path_without_qemu_names_the_package(tmp_path):
    done = run_cli(tmp_path, env={"PATH": str(tmp_path)})
    assert_refused(done, ExitCode.HOST, "QEMU is missing", "python -m host_setup packages")


def test_no_image_names_the_command_that_builds_it(tmp_path):
    done = run_cli(tmp_path, env={"RTFLEET_CACHE": str(tmp_path / "empty")})
    assert_refused(done, ExitCode.HOST, "no guest image of arm64", "python -m host_setup image")


def test_image_folder_that_is_not_there_is_named(tmp_path):
    done = run_cli(tmp_path, "machines.qemu.image=/nonexistent")
    assert_refused(done, ExitCode.HOST, "/nonexistent", "python -m host_setup image")


@pytest.mark.guest
@pytest.mark.parametrize("damaged", [METADATA_NAME, FILE_NAMES[0]])
def test_damaged_image_names_the_file(tmp_path, damaged):
    image = tmp_path / "image"
    shutil.copytree(GuestImage.current("arm64").folder, image)
    content = (image / damaged).read_bytes()
    (image / damaged).write_bytes(content[: len(content) // 2])
    done = run_cli(tmp_path, f"machines.qemu.image={image}")
    assert_refused(done, ExitCode.HOST, "damaged", damaged, "python -m host_setup image")


@pytest.mark.guest
def test_port_in_use_says_which_key_sets_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_cli(tmp_path, f"machines.qemu.ssh_port={port}")
    assert done.returncode == ExitCode.HOST
    assert "Traceback" not in done.stderr
    assert "machines.qemu.ssh_port" in done.stderr
    assert str(port) in done.stderr
    assert len(done.stderr.splitlines()) <= SCREEN_LINES


SMALL_DISK = """
mkdir disk
mount -t tmpfs -o size=$1 none disk || exit 77
shift
exec "$@"
"""


def run_on_small_disk(folder: Path, size: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a mount namespace of its own, so that nothing has to be unmounted."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, to mount a small disk")
    command = [sys.executable, "-m", "runner", "hydra.run.dir=disk/run", "report=false", *arguments]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh", size, *command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this computer lets nobody mount a disk")
    return done


def test_full_disk_at_the_start_is_the_hosts_fault(tmp_path):
    done = run_on_small_disk(tmp_path, "4k", IDEAL)
    assert_refused(done, ExitCode.HOST, "disk", "full", "hydra.run.dir")
