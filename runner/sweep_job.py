"""One run of a sweep as a job of a launcher: in a process of its own, on this computer or another."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from runner.campaign import Campaign, Manner, Part
from runner.config.composer import ConfigComposer, ConfigPlaces
from runner.config.files import bound_config_files
from runner.config.masking import Masking
from runner.config.schemas import register_schemas
from runner.exit_codes import ExitCode
from runner.run_folder.jobs import JobFiles

# linux/prctl.h
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class SweepJob:
    """What it takes to carry out any run of a sweep in another process; can be pickled.

    Attributes:
        places: Where config files are.
        config: What the runs have in common.
        folder: The sweep's.
        manner: How it was asked for.
    """

    places: ConfigPlaces
    config: DictConfig
    folder: Path
    manner: Manner

    def __call__(self, number: int, folder: Path, overrides: Sequence[str]) -> int:
        """Carry out one run, to its exit code; the process is the launcher's, and may get another."""
        # What ends a sweep is told to its command, which tells its runs; a launcher that loses a process ends the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        launcher = os.getppid()
        _end_with_parent()
        files = JobFiles(self.folder)
        if files.stopped:
            return ExitCode.STOPPED
        os.umask(0o077)
        try:
            with files.printing(number):
                code = self._carry_out(number, folder, overrides)
            files.ended(number, code)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Nobody has another job for this process, and some would wait for one for ever.
            if os.getppid() != launcher:
                os._exit(ExitCode.STOPPED)
        return code

    def _carry_out(self, number: int, folder: Path, overrides: Sequence[str]) -> ExitCode:
        register_schemas()
        bound_config_files()
        with Masking() as masking, ConfigComposer(self.places) as composer:
            campaign = Campaign(composer, masking, self.manner)
            config = composer.run_of(self.config, overrides, number)
            return campaign.carry_out(config, folder, Part(at_once=True))


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the launcher's process ends, however: a run stops in order, what is idle ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
