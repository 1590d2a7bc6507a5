"""What a user's config is like, as far as a rehearsal cares, and the smaller config that it rehearses instead."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from runner.errors import UsageError
from runner.specs import Clock, Reset

CONFIG_NAME = "rehearsal"
_SQLITE = "runner.monitors.sqlite.SQLiteMonitor"
_COMPOSE_TIMEOUT_S = 120.0
#: Hydra's part of the config that is rehearsed: as conf/config.yaml has it.
_HYDRA_DEFAULTS = [
    "base_config",
    "_self_",
    {"override hydra/job_logging": "run"},
    {"override hydra/hydra_logging": "none"},
]
_HYDRA = {"job": {"name": "runner", "chdir": False}}


class Reached(Enum):
    """Through what task sets reach whatever runs them."""

    SIMULATION = "simulation"
    MAILBOX = "mailbox"
    SSH = "ssh"
    #: A session of the user's own, or another one that nothing can be injected into.
    OTHER = "another session"


_SESSIONS: Mapping[str, tuple[Reached, str]] = MappingProxyType(
    {
        "runner.sessions.simulation.SimulationSession": (Reached.SIMULATION, "RehearsedSimulation"),
        "runner.sessions.mailbox.MailboxSession": (Reached.MAILBOX, "RehearsedMailbox"),
        "runner.sessions.ssh.SshSession": (Reached.SSH, "RehearsedSsh"),
    }
)


@dataclass(frozen=True)
class Setup:
    """A composed config.

    Attributes:
        config: As `python -m runner --cfg job` prints it.
        n_sets: How many task sets are measured.
    """

    config: Mapping[str, Any]
    n_sets: int

    @property
    def reached(self) -> Reached:
        """Through what task sets reach whatever runs them."""
        session = self.config["machines"]["session"].get("_target_")
        return _SESSIONS.get(session, (Reached.OTHER, ""))[0]

    @property
    def has_guests(self) -> bool:
        """Whether there are emulators that can be got at."""
        return self.reached in (Reached.MAILBOX, Reached.SSH)

    @property
    def repeats(self) -> bool:
        """Whether a measurement is a function of its task set alone, so that data must be equal bit for bit."""
        machines = self.config["machines"]
        exact = machines["qemu"]["clock"] == Clock.ICOUNT and machines["reset"] == Reset.TASKSET
        return self.reached is Reached.SIMULATION or (self.reached is Reached.MAILBOX and exact)

    @property
    def policy(self) -> Mapping[str, float]:
        """How patient machines are."""
        return dict(self.config["machines"]["policy"])

    def set_budget_s(self, end_ns: int = 0) -> float:
        """How long a set may take that ends at `end_ns` of its own time."""
        policy = self.policy
        return float(policy["taskset_timeout_s"] + policy["taskset_timeout_factor"] * end_ns / 1e9)

    def rehearsed(self, link: Path) -> dict[str, Any]:
        """The config of the runs: the first sets only, the data set in the run folder, and the rehearsal's line to it.

        Raises:
            UsageError: there is no data set that could be looked at.
        """
        config = copy.deepcopy(dict(self.config))
        config["tasksets"] = {
            "_target_": "runner.rehearsal.source.FirstSets",
            "n_sets": self.n_sets,
            "made_by": config["tasksets"].pop("_target_", None),
            "arguments": config["tasksets"],
        }
        # Nothing is measured where everything is known.
        config["reuse"] = None
        _have_data_set(config["monitors"])
        config["monitors"]["rehearsal"] = {
            "_target_": "runner.rehearsal.monitor.RehearsalMonitor",
            "link": str(link),
        }
        session = config["machines"]["session"]
        if self.reached is not Reached.OTHER:
            name = _SESSIONS[session["_target_"]][1]
            session |= {"_target_": f"runner.rehearsal.sessions.{name}", "link": str(link)}
        return config

    def write(self, folder: Path, link: Path) -> list[str]:
        """Put that config into a folder; the arguments by which `python -m runner` takes it.

        Raises:
            As `rehearsed`.
            OSError: the folder cannot be written.
        """
        # JSON is YAML; ours leads the way, whatever the user's own files are called.
        text = json.dumps({"defaults": _HYDRA_DEFAULTS, "hydra": _HYDRA, **self.rehearsed(link)}, indent=1)
        (folder / f"{CONFIG_NAME}.yaml").write_text(f"{text}\n", encoding="utf-8")
        return ["--config-dir", str(folder), "--config-name", CONFIG_NAME]


def _have_data_set(monitors: dict[str, Any]) -> None:
    """See that exactly one monitor keeps the data set, in the run folder, whatever of the user's it would have gone to."""
    keepers = [name for name, node in monitors.items() if node.get("_target_") == _SQLITE]
    if not keepers:
        raise UsageError(
            "no monitor keeps a data set: there is nothing to check after a fault",
            where="monitors",
            next_step="add one for the rehearsal: +monitors.sqlite._target_=runner.monitors.sqlite.SQLiteMonitor",
        )
    for name in keepers[1:]:
        del monitors[name]
    keeper = monitors[keepers[0]]
    keeper["path"] = "${run_folder}/results.sqlite"
    if keeper.get("parquet") is not None:
        keeper["parquet"] = "${run_folder}/parquet"


def compose(arguments: Sequence[str], n_sets: int) -> Setup:
    """What `python -m runner` would make of these arguments.

    Raises:
        UsageError: they make no sense; in the runner's own words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "runner", *arguments, "--cfg", "job"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMPOSE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise UsageError(done.stderr.strip().removeprefix("error: ") or "the config cannot be composed")
    config = yaml.safe_load(done.stdout)
    if not isinstance(config, dict) or not isinstance(config.get("machines"), dict):
        raise UsageError(
            "these arguments ask for something else than a run",
            where="the command line",
            next_step="give the overrides of the run that is to be rehearsed",
        )
    return Setup(config, n_sets)
