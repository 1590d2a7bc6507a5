"""Hydra's launchers: what has the jobs of a sweep carried out, on this computer or a cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from runner.config.files import unbound_config_files

#: Called with a run's number, its folder and its overrides; returns an exit code. Can be pickled.
JobFunction = Callable[[int, Path, Sequence[str]], int]
_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class RunTicket:
    """What a job is about: a run's number, its folder and its overrides."""

    number: int
    folder: Path
    overrides: Sequence[str]


def is_basic(config: DictConfig) -> bool:
    """Whether no launcher is chosen: the runs are carried out in this process, one after the other."""
    return bool(OmegaConf.select(config, "hydra.launcher._target_") == _BASIC)


def launch(config: DictConfig, folder: Path, function: JobFunction, tickets: Sequence[RunTicket]) -> None:
    """Have the launcher that the config names call `function` for each ticket, and wait for it.

    A launcher composes the config of each job, makes its folder and sets up its log; here all of that is the function's.

    Args:
        folder: The sweep's.

    Raises:
        Exception: the launcher's own.
    """
    own = config.copy()
    with open_dict(own), read_write(own.hydra):
        own.hydra.sweep.dir = str(folder)  # where launchers keep files of their own
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=_Tickets(), callbacks=Callbacks()),  # type: ignore[arg-type] # as far as it is asked for
        task_function=_Task(function),
        config=own,
    )
    jobs = [[f"number={one.number}", f"folder={one.folder}", *one.overrides] for one in tickets]
    with unbound_config_files():
        launcher.launch(jobs, 0)


class _Tickets:
    """In the place of Hydra's loader: makes a config of a ticket that has `run_job` do nothing but call the task."""

    def load_sweep_config(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        """As launchers call it."""
        number, folder, *rest = overrides
        hydra = {
            "sweep": {"dir": str(master.hydra.sweep.dir), "subdir": "."},
            "job": {"name": str(master.hydra.job.name), "chdir": False},
            "job_logging": {"version": 1, "root": {"handlers": []}, "disable_existing_loggers": False},
            "output_subdir": None,
            "verbose": False,
        }
        # Encoded: overrides may hold references, which are none of this config.
        ticket = json.dumps([int(number.partition("=")[2]), folder.partition("=")[2], rest])
        shell = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf), "ticket": ""})
        shell.merge_with({"hydra": hydra})
        shell.ticket = base64.b64encode(ticket.encode()).decode()
        return shell


@dataclass(frozen=True)
class _Task:
    """What a launcher calls in the process of a job."""

    function: JobFunction

    def __call__(self, config: DictConfig) -> int:
        GlobalHydra.instance().clear()  # the state of the process that launched it
        number, folder, overrides = json.loads(base64.b64decode(config.ticket))
        return self.function(number, Path(folder), overrides)
