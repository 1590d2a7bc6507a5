"""SLURM, really: Debian's daemons with one node, this computer, on loopback and in a temporary folder; nothing of the system's is touched.

For whoever asks for it: `RTFLEET_TEST_SLURM=1 python -m pytest tests/test_slurm.py`, after `python -m host_setup packages --slurm`.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemons import end
from tests.fleet_samples import eventually

#: The mark of tests that submit.
asked = pytest.mark.skipif(
    not os.environ.get("RTFLEET_TEST_SLURM"),
    reason="submits to a SLURM of its own: RTFLEET_TEST_SLURM=1, and python -m host_setup packages --slurm",
)

#: To begin, to take a job away, and to end; all take a second or two.
_STEP_S = 30.0
# Debian's users do not have root's folders on their PATH.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_CONFIG = """\
ClusterName=rtfleet
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={n_cpus} RealMemory=1000000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class SlurmNode:
    """A SLURM that runs.

    Attributes:
        folder: Its config, state and logs.
        environment: What makes SLURM's commands, whoever calls them, talk to this one.
    """

    folder: Path
    environment: Mapping[str, str]

    def run(self, *words: str) -> str:
        """What a command of SLURM's prints.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=_STEP_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self, *, ended: bool = False) -> dict[str, str]:
        """State (`PENDING`, `RUNNING`, `COMPLETING` …) of each job that is in the queue, or also of those that have ended.

        Those of an array have a number each: `1_0`.
        """
        states = ("--states=all",) if ended else ()
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T", *states).splitlines()
        return {words[0]: words[1] for words in map(str.split, lines)}


@contextmanager
def slurm_node(*, n_cpus: int = 8) -> Iterator[SlurmNode]:
    """SLURM as long as the block lasts.

    Guarantees: afterwards no job, no daemon and no file of it is left; each step of the end is bounded.

    Args:
        n_cpus: What the node says that it has, however many there are: so many jobs of one CPU run at once.
    """
    with ExitStack() as stack:
        # Not pytest's folder: the name of a socket must be short.
        folder = Path(tempfile.mkdtemp(prefix="rtfleet-slurm-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder)
        node = SlurmNode(folder, {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH})
        _write(folder, n_cpus)
        munge = [
            "munged",
            "--foreground",
            "--force",  # the folder is the test's alone, and munge wants all to see its socket
            *(f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")),
            f"--socket={folder}/munge.socket",
        ]
        stack.enter_context(_daemon(node, munge))
        eventually((folder / "munge.socket").exists, _STEP_S)
        stack.enter_context(_daemon(node, ["slurmctld", "-D"]))
        stack.enter_context(_daemon(node, ["slurmd", "-D"]))
        stack.callback(_end_jobs, node)
        eventually(lambda: _is_idle(node), _STEP_S)
        yield node


def _write(folder: Path, n_cpus: int) -> None:
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    config = _CONFIG.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        ports=_free_ports(2),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        n_cpus=n_cpus,
    )
    (folder / "slurm.conf").write_text(config)


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _daemon(node: SlurmNode, command: Sequence[str]) -> Iterator[None]:
    program = shutil.which(command[0], path=_PATH)
    assert program, f"there is no {command[0]} here: python -m host_setup packages --slurm"
    with (node.folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(
            [program, *command[1:]],
            env={**os.environ, **node.environment},
            cwd=node.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        end(process, _STEP_S)


def _is_idle(node: SlurmNode) -> bool:
    try:
        return node.run("sinfo", "--noheader", "--format=%T").split() == ["idle"]
    except AssertionError:  # the controller does not answer yet
        return False


def _end_jobs(node: SlurmNode) -> None:
    """Whatever a test has left: the processes of a job outlive the daemons."""
    node.run("scancel", f"--user={os.geteuid()}")
    eventually(lambda: not node.jobs(), _STEP_S)
