"""A run from Python: what is asked for is what the command line would be asked for."""

from __future__ import annotations

import os
from pathlib import Path

from runner.errors import UsageError
from runner.notebook.process import RunProcess
from runner.notebook.started_run import StartedRun
from runner.paths import RunPaths
from runner.run_folder.pulse import read_pulse

# How often is looked whether it has begun.
_POLL_S = 0.02


def start(*overrides: str, resume: str | os.PathLike[str] | None = None) -> StartedRun:
    """Start a run, as `python -m runner OVERRIDE…` does, in a process of its own.

        with runner.start("machines.count=2") as run:
            for result in run:
                print(result.name, result.schedulable)

    Returns when the run has begun. Relative paths, and modules that the config names, are looked for from the present folder.

    Args:
        overrides: The command line's words, one each: `"tasksets.seed=7"`.
        resume: The folder of a run to go on with.

    Raises:
        UsageError: the config cannot be meant, or the run cannot be resumed; nothing was started.
        HostError: this computer cannot run it.
    """
    arguments = [*overrides, *([] if resume is None else [f"resume={os.fspath(resume)}"])]
    _refuse_sweep(arguments)
    process = RunProcess(arguments)
    try:
        while not (process.ended or _has_begun(process)):
            process.look(_POLL_S)
        process.refuse_if_failed()
        if process.placed is None:
            raise UsageError(
                "no run was asked for: " + " ".join(process.printed()[:1]),
                where="runner.start",
                next_step="leave out what only shows something, such as --help and --cfg",
            )
    except BaseException:
        process.kill()
        raise
    return StartedRun(process)


def _has_begun(process: RunProcess) -> bool:
    return process.placed is not None and read_pulse(RunPaths(process.placed.folder)).pid == process.pid


def _refuse_sweep(arguments: list[str]) -> None:
    folders = [Path(one.removeprefix("resume=")) for one in arguments if one.startswith("resume=")]
    sweeps = [one for one in arguments if one in ("-m", "--multirun", "hydra.mode=MULTIRUN")]
    if sweeps or any(RunPaths(folder).sweep.exists() for folder in folders):
        raise UsageError(
            "a sweep is more than one run",
            where="runner.start",
            next_step="start one run after the other in a loop, or the sweep by python -m runner --multirun",
        )
