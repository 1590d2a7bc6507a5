"""One run, by itself or as one of a sweep: begun or resumed in its folder, to its exit code."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from runner.config.composer import ConfigComposer, record_of, secrets_in
from runner.config.errors import explained, is_config_error
from runner.config.masking import Masking
from runner.config.plan import RunPlan, to_plan
from runner.config.record import RunRecord, read_record
from runner.config.resuming import complete_code, read_manifest
from runner.errors import RunnerError, UsageError, host_error
from runner.exit_codes import ExitCode, exit_code_of
from runner.monitors.progress import ProgressMonitor
from runner.paths import RunPaths
from runner.run import execute
from runner.run_folder.files import Resumption
from runner.run_folder.lock import RunLock, clear_leftovers

#: Ends after which something may be left to do.
RESUMABLE = (ExitCode.BUG, ExitCode.HOST, ExitCode.STOPPED)
_log = logging.getLogger("runner.cli")


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How runs were asked for.

    Attributes:
        resuming: Whether those go on that have begun; otherwise they are refused.
        accepted: Whether they go on though something has changed.
        shell_folder: Where the user is, for paths that are shown.
    """

    resuming: bool
    accepted: bool
    shell_folder: Path


@dataclass(frozen=True)
class Part:
    """A run's place in a sweep, which shows how far all are by one bar.

    Attributes:
        at_once: Whether others of it run at the same time: then what one fleet may have on this computer is for all of them.
    """

    at_once: bool = False

    def of(self, plan: RunPlan) -> RunPlan:
        """The plan, with what follows from that."""
        monitors = {name: one for name, one in plan.monitors.items() if not isinstance(one, ProgressMonitor)}
        has_guests = (plan.qemu or plan.genode) is not None and plan.cluster is None
        reserves = plan.reserves
        if self.at_once and has_guests and reserves.computer_limit is None:
            reserves = replace(reserves, computer_limit=plan.limit)
        return replace(plan, monitors=monitors, reserves=reserves)


class Campaign:
    """Carries runs out; tells on standard output and standard error how each ended.

    Args:
        composer: Makes the configs.
        masking: Is told the secrets of each.
        manner: How it was asked for.
    """

    def __init__(self, composer: ConfigComposer, masking: Masking, manner: Manner) -> None:
        self._composer = composer
        self._masking = masking
        self._manner = manner

    def run(self, config: DictConfig, folder: Path) -> ExitCode:
        """One run by itself, which raises nothing."""
        if self._manner.resuming and (code := self.complete(folder)) is not None:
            return code
        code = self.carry_out(config, folder)
        if code in RESUMABLE and RunPaths(folder).manifest.exists():
            self.tell_how_to_resume(folder)
        return code

    def complete(self, folder: Path) -> ExitCode | None:
        """What a run has ended with that has nothing left to do, which is told; None for any other."""
        try:
            code = complete_code(read_manifest(RunPaths(folder).manifest))
        except UsageError as exc:
            return self.show(exc, self._masking)
        if code is not None:
            self.tell(f"complete: {self._shown(folder)}")
        return code

    def carry_out(self, config: DictConfig, folder: Path, part: Part | None = None) -> ExitCode:
        """A run that is not complete; raises nothing.

        Args:
            part: What it is of a sweep; None: it is none of any.
        """
        try:
            end_in_order()
            return self._run_locked(config, folder, part)
        except KeyboardInterrupt:
            print("stopped before anything was measured", file=sys.stderr)
            return ExitCode.STOPPED
        except OSError as exc:
            return self.show(host_error(exc, "hydra.run.dir"), self._masking)
        except Exception as exc:  # noqa: BLE001 - the next run of a sweep must go on
            return self.show(explained(exc), self._masking)

    def _run_locked(self, config: DictConfig, folder: Path, part: Part | None) -> ExitCode:
        folder.mkdir(parents=True, exist_ok=True)
        codes = []
        with RunLock(folder):
            clear_leftovers(folder)
            before = (
                read_record(folder) if self._manner.resuming and RunPaths(folder).record.exists() else None
            )
            self._composer.carry_out(
                config,
                folder,
                lambda own: codes.append(self._measure(own, record_of(config), folder, before, part)),
            )
        return codes[0]

    def _measure(
        self,
        config: DictConfig,
        record: RunRecord,
        folder: Path,
        before: RunRecord | None,
        part: Part | None,
    ) -> ExitCode:
        """What is logged from here on is in the run folder."""
        self._masking.learn(secrets_in(config))
        resumption = Resumption(before, self._manner.accepted) if before is not None else None
        try:
            plan = to_plan(config) if part is None else part.of(to_plan(config))
            code = execute(plan, folder, record, resumption=resumption, mask=self._masking.mask)
        except Exception as exc:  # noqa: BLE001 - the main thread's top
            if isinstance(exc, RunnerError) or is_config_error(exc):
                _log.info("the run ends with an error", exc_info=True)
                return self.show(explained(exc), self._masking)
            _log.info("a bug ends the run", exc_info=True)
            summary = next(iter(str(exc).splitlines()), "")
            bug = RunnerError(
                f"a bug ended the run: {type(exc).__name__}: {summary}",
                log_path=folder / "distributor.log",
                next_step="please report it, with that log",
            )
            return self.show(bug, self._masking)
        self.tell(f"run folder: {self._shown(folder)}")
        if code is ExitCode.BAD_TASKSETS:
            why = f"python -m runner.why {shlex.quote(self._shown(folder))}"
            print(f"some task sets are bad; why: {why}", file=sys.stderr)
        return code

    def tell_how_to_resume(self, folder: Path) -> None:
        print(
            f"to go on: python -m runner resume={shlex.quote(self._shown(folder))}",
            file=sys.stderr,
            flush=True,
        )

    def _shown(self, path: Path) -> str:
        """A path as short as it can be typed."""
        near = path.is_relative_to(self._manner.shell_folder)
        return str(path.relative_to(self._manner.shell_folder)) if near else str(path)

    @staticmethod
    def tell(line: str) -> None:
        """A line on the standard output."""
        try:
            print(line, flush=True)
        except BrokenPipeError:  # `python -m runner | head`: what was measured counts, not who reads along
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @staticmethod
    def show(error: RunnerError, masking: Masking) -> ExitCode:
        """Tell an error, and what the command is to end with."""
        print(masking.mask(f"error: {error}"), file=sys.stderr)
        return exit_code_of(error)


def end_in_order() -> None:
    """Have SIGINT and SIGTERM raise from here on: what is begun is to be taken back. A run has its own way with them.

    While configs are composed they end the program at once (`runner.__main__`): libraries may lose an exception there.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
