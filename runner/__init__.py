"""A declarative batch runner for real-time experiments on fleets of QEMU machines.

From a Python shell, without Hydra:

    >>> from runner import Distributor, Hey0TaskSet, StdoutMonitor
    >>> with Distributor(max_machine=1) as distributor:
    ...     distributor.add_job(Hey0TaskSet(), StdoutMonitor())
    ...     distributor.wait()
"""

from runner.distributor import Distributor
from runner.errors import RunnerError
from runner.kinds import qemu_by_mailbox, qemu_over_ssh, simulated
from runner.machine import Machine
from runner.model import OverrunPolicy, Policy, Task, TaskSet, TaskSetSource
from runner.monitors.base import AbstractMonitor
from runner.monitors.logging import LoggingMonitor
from runner.monitors.progress import ProgressMonitor
from runner.monitors.sqlite import SQLiteMonitor
from runner.monitors.stdout import StdoutMonitor
from runner.monitors.summary import SummaryMonitor
from runner.sessions.base import AbstractSession
from runner.specs import Clock, MachinePolicy, QemuSpec, Reset
from runner.station import MachineKind
from runner.taskset_queue import TaskSetQueue
from runner.tasksets.examples import Hey0TaskSet
from runner.tasksets.explicit import ExplicitTaskSets
from runner.tasksets.uunifast import UUniFastTaskSets

__all__ = [
    "AbstractMonitor",
    "AbstractSession",
    "Clock",
    "Distributor",
    "ExplicitTaskSets",
    "Hey0TaskSet",
    "LoggingMonitor",
    "Machine",
    "MachineKind",
    "MachinePolicy",
    "OverrunPolicy",
    "Policy",
    "ProgressMonitor",
    "QemuSpec",
    "Reset",
    "RunnerError",
    "SQLiteMonitor",
    "StdoutMonitor",
    "SummaryMonitor",
    "Task",
    "TaskSet",
    "TaskSetQueue",
    "TaskSetSource",
    "UUniFastTaskSets",
    "qemu_by_mailbox",
    "qemu_over_ssh",
    "simulated",
]
