"""A declarative batch runner for real-time experiments on fleets of QEMU machines.

A run as the command line makes it, from Python:

    >>> import runner
    >>> with runner.start("machines.count=2") as run:
    ...     for result in run:
    ...         print(result.name, result.schedulable)

Without Hydra:

    >>> from runner import Distributor, Hey0TaskSet, StdoutMonitor
    >>> with Distributor(max_machine=1) as distributor:
    ...     distributor.add_job(Hey0TaskSet(), StdoutMonitor())
    ...     distributor.wait()
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.data.reading import DataSet, load
    from runner.distributor import Distributor
    from runner.errors import RunnerError
    from runner.formats.source import FileTaskSets
    from runner.machines.kinds import qemu_by_mailbox, qemu_over_ssh, simulated, with_screens
    from runner.machines.machine import Machine
    from runner.machines.station import MachineKind
    from runner.model import OverrunPolicy, Policy, Task, TaskSet, TaskSetSource
    from runner.monitors.base import AbstractMonitor
    from runner.monitors.csv import CSVMonitor
    from runner.monitors.logging import LoggingMonitor
    from runner.monitors.mongodb import MongoDBMonitor
    from runner.monitors.parquet import ParquetMonitor
    from runner.monitors.postgresql import PostgreSQLMonitor
    from runner.monitors.progress import ProgressMonitor
    from runner.monitors.sqlite import SQLiteMonitor
    from runner.monitors.stdout import StdoutMonitor
    from runner.monitors.summary import SummaryMonitor
    from runner.notebook.results import Result
    from runner.notebook.start import start
    from runner.notebook.started_run import StartedRun
    from runner.queue.taskset_queue import TaskSetQueue
    from runner.sessions.base import AbstractSession
    from runner.specs import Clock, MachinePolicy, QemuSpec, Reset
    from runner.tasksets.examples import Hey0TaskSet
    from runner.tasksets.explicit import ExplicitTaskSets
    from runner.tasksets.uunifast import UUniFastTaskSets

__all__ = [
    "AbstractMonitor",
    "AbstractSession",
    "CSVMonitor",
    "Clock",
    "DataSet",
    "Distributor",
    "ExplicitTaskSets",
    "FileTaskSets",
    "Hey0TaskSet",
    "LoggingMonitor",
    "Machine",
    "MachineKind",
    "MachinePolicy",
    "MongoDBMonitor",
    "OverrunPolicy",
    "ParquetMonitor",
    "Policy",
    "PostgreSQLMonitor",
    "ProgressMonitor",
    "QemuSpec",
    "Reset",
    "Result",
    "RunnerError",
    "SQLiteMonitor",
    "StartedRun",
    "StdoutMonitor",
    "SummaryMonitor",
    "Task",
    "TaskSet",
    "TaskSetQueue",
    "TaskSetSource",
    "UUniFastTaskSets",
    "load",
    "qemu_by_mailbox",
    "qemu_over_ssh",
    "simulated",
    "start",
    "with_screens",
]

# Imported when they are asked for: the command line must hear Ctrl-C before half a second of imports.
_HOMES = {
    "PostgreSQLMonitor": "runner.monitors.postgresql",
    "ParquetMonitor": "runner.monitors.parquet",
    "MongoDBMonitor": "runner.monitors.mongodb",
    "CSVMonitor": "runner.monitors.csv",
    "AbstractMonitor": "runner.monitors.base",
    "AbstractSession": "runner.sessions.base",
    "Clock": "runner.specs",
    "DataSet": "runner.data.reading",
    "Distributor": "runner.distributor",
    "ExplicitTaskSets": "runner.tasksets.explicit",
    "FileTaskSets": "runner.formats.source",
    "Hey0TaskSet": "runner.tasksets.examples",
    "LoggingMonitor": "runner.monitors.logging",
    "Machine": "runner.machines.machine",
    "MachineKind": "runner.machines.station",
    "MachinePolicy": "runner.specs",
    "OverrunPolicy": "runner.model",
    "Policy": "runner.model",
    "ProgressMonitor": "runner.monitors.progress",
    "QemuSpec": "runner.specs",
    "Reset": "runner.specs",
    "Result": "runner.notebook.results",
    "RunnerError": "runner.errors",
    "SQLiteMonitor": "runner.monitors.sqlite",
    "StartedRun": "runner.notebook.started_run",
    "StdoutMonitor": "runner.monitors.stdout",
    "SummaryMonitor": "runner.monitors.summary",
    "Task": "runner.model",
    "TaskSet": "runner.model",
    "TaskSetQueue": "runner.queue.taskset_queue",
    "TaskSetSource": "runner.model",
    "UUniFastTaskSets": "runner.tasksets.uunifast",
    "load": "runner.data.reading",
    "qemu_by_mailbox": "runner.machines.kinds",
    "qemu_over_ssh": "runner.machines.kinds",
    "simulated": "runner.machines.kinds",
    "start": "runner.notebook.start",
    "with_screens": "runner.machines.kinds",
}


if not TYPE_CHECKING:  # who checks types is to miss a name that is not there

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
