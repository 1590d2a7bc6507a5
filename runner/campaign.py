"""One run, or the runs of a sweep: begun or resumed in their folders, one after the other, each to its exit code."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from pathlib import Path

from omegaconf import DictConfig

from runner.config.composer import ConfigComposer, previewed, record_of, secrets_in, subfolder_of
from runner.config.errors import explained, is_config_error
from runner.config.masking import Masking
from runner.config.plan import to_plan
from runner.config.record import RunRecord, read_record
from runner.config.resuming import Changes, complete_code, config_changes, read_manifest, refuse_changes
from runner.errors import RunnerError, UsageError, host_error
from runner.exit_codes import ExitCode, exit_code_of
from runner.paths import RunPaths
from runner.run import execute
from runner.run_folder.files import Resumption
from runner.run_folder.lock import RunLock, clear_leftovers

# A sweep ends with the code that asks for attention most.
_WORST_FIRST = (
    ExitCode.BUG,
    ExitCode.USAGE,
    ExitCode.HOST,
    ExitCode.STOPPED,
    ExitCode.BAD_TASKSETS,
    ExitCode.OK,
)
#: Ends after which something may be left to do.
_RESUMABLE = (ExitCode.BUG, ExitCode.HOST, ExitCode.STOPPED)
_log = logging.getLogger("runner.cli")


class Campaign:
    """What one command carries out; tells on standard output and standard error how each run ended.

    Args:
        composer: Makes the configs.
        masking: Is told the secrets of each.
        resuming: Whether runs go on that have begun; otherwise they are refused.
        accepted: Whether they go on though something has changed.
        shell_folder: Where the user is, for paths that are shown.
    """

    def __init__(
        self,
        composer: ConfigComposer,
        masking: Masking,
        *,
        resuming: bool,
        accepted: bool,
        shell_folder: Path,
    ) -> None:
        self._composer = composer
        self._masking = masking
        self._resuming = resuming
        self._accepted = accepted
        self._shell_folder = shell_folder

    def run(self, config: DictConfig, folder: Path) -> ExitCode:
        """One run, which raises nothing."""
        code = self._run(config, folder)
        if code in _RESUMABLE and RunPaths(folder).manifest.exists():
            self._tell_how_to_resume(folder)
        return code

    def sweep(self, config: DictConfig, folder: Path) -> ExitCode:
        """Run after run, until the operator stops one: who does so means all of them.

        Raises:
            UsageError: the sweep is not the one that was begun in this folder.
            RunnerError: the config of one of its runs cannot be meant; none was begun. It says which, and with what values.
        """
        runs = self._composer.runs_of(config)
        titles = self._validated(config, folder, runs)
        codes = []
        try:
            _end_in_order()
            folder.mkdir(parents=True, exist_ok=True)
            with RunLock(folder):
                clear_leftovers(folder)
                self._begin_sweep(config, folder, runs)
                for number, overrides in enumerate(runs):
                    one = self._composer.run_of(config, overrides, number)
                    codes.append(self._run(one, folder / subfolder_of(one), titles[number]))
                    if codes[-1] is ExitCode.STOPPED:
                        break
        except OSError as exc:
            raise host_error(exc, "hydra.sweep.dir") from exc
        except KeyboardInterrupt:  # between two runs
            codes.append(ExitCode.STOPPED)
        code = next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)
        if code in _RESUMABLE and RunPaths(folder).sweep.exists():
            self._tell_how_to_resume(folder)
        return code

    def _validated(self, config: DictConfig, folder: Path, runs: list[list[str]]) -> list[str]:
        """What each run is called, once every one that is still to be carried out has a plan.

        Its objects are made for that, and thrown away.
        """
        swept = [" ".join(one.values()) for one in self._composer.swept(record_of(config))]
        for number, (overrides, values) in enumerate(zip(runs, swept, strict=True)):
            try:
                one = self._composer.run_of(config, overrides, number)
                self._validate(one, folder / subfolder_of(one))
            except Exception as exc:
                if not (isinstance(exc, RunnerError) or is_config_error(exc)):
                    raise
                error = explained(exc)
                raise type(error)(
                    f"run {number} of the sweep ({values or 'the only one'}): {error.what}",
                    where=error.where,
                    next_step=error.next_step,
                    evidence=error.evidence,
                ) from exc
        return [f"run {number + 1}/{len(runs)} {values}".rstrip() for number, values in enumerate(swept)]

    def _validate(self, config: DictConfig, folder: Path) -> None:
        if self._resuming and complete_code(read_manifest(RunPaths(folder).manifest)) is not None:
            return
        with previewed(config, folder) as own:
            self._masking.learn(secrets_in(own))
            if not config.hydra.job.chdir:  # otherwise relative paths mean something in its folder alone
                to_plan(own)

    def _begin_sweep(self, config: DictConfig, folder: Path, runs: list[list[str]]) -> None:
        record = record_of(config)
        if not RunPaths(folder).sweep.exists():
            record.write_sweep(folder)
            return
        if not self._resuming:
            raise UsageError(
                f"{folder} holds another sweep",
                where="hydra.sweep.dir",
                next_step=f"resume={folder} goes on with it; or choose another folder",
            )
        before = read_record(folder)
        changes = config_changes(before.config, record.config)
        moved = self._moved(before, record)
        if not self._accepted:
            refuse_changes(folder, {**moved, **changes})
        for number, overrides in enumerate(runs):
            subfolder = subfolder_of(self._composer.run_of(config, overrides, number))
            begun = RunPaths(folder / subfolder).record.exists()
            if begun and f"run {number}" in moved:
                was, _ = moved[f"run {number}"]
                raise UsageError(
                    f"run {number} of the sweep has begun, with {was}",
                    where=str(folder / subfolder),
                    next_step="what is swept can only be added to, at its end; otherwise start a new sweep",
                )
        if moved or changes:
            record.write_sweep(folder)

    def _moved(self, before: RunRecord, now: RunRecord) -> Changes:
        """Runs of a sweep that are not what they were."""
        old, new = (
            [" ".join(one.values()) for one in self._composer.swept(record)] for record in (before, now)
        )
        length = max(len(old), len(new))
        padded = ([*ones, *["(not there)"] * (length - len(ones))] for ones in (old, new))
        return {f"run {number}": (a, b) for number, (a, b) in enumerate(zip(*padded, strict=True)) if a != b}

    def _run(self, config: DictConfig, folder: Path, title: str = "") -> ExitCode:
        paths = RunPaths(folder)
        try:
            _end_in_order()
            if self._resuming:
                code = complete_code(read_manifest(paths.manifest))
                if code is not None:
                    self._print(f"complete: {self._shown(folder)}")
                    return code
            if title:
                print(title, file=sys.stderr, flush=True)
            return self._run_locked(config, folder)
        except KeyboardInterrupt:
            print("stopped before anything was measured", file=sys.stderr)
            return ExitCode.STOPPED
        except OSError as exc:
            return self.show(host_error(exc, "hydra.run.dir"), self._masking)
        except Exception as exc:  # noqa: BLE001 - the next run of a sweep must go on
            return self.show(explained(exc), self._masking)

    def _run_locked(self, config: DictConfig, folder: Path) -> ExitCode:
        folder.mkdir(parents=True, exist_ok=True)
        codes = []
        with RunLock(folder):
            clear_leftovers(folder)
            before = read_record(folder) if self._resuming and RunPaths(folder).record.exists() else None
            self._composer.carry_out(
                config,
                folder,
                lambda own: codes.append(self._measure(own, record_of(config), folder, before)),
            )
        return codes[0]

    def _measure(
        self, config: DictConfig, record: RunRecord, folder: Path, before: RunRecord | None
    ) -> ExitCode:
        """What is logged from here on is in the run folder."""
        self._masking.learn(secrets_in(config))
        resumption = Resumption(before, self._accepted) if before is not None else None
        try:
            code = execute(to_plan(config), folder, record, resumption=resumption, mask=self._masking.mask)
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
        self._print(f"run folder: {self._shown(folder)}")
        if code is ExitCode.BAD_TASKSETS:
            why = f"python -m runner.why {shlex.quote(self._shown(folder))}"
            print(f"some task sets are bad; why: {why}", file=sys.stderr)
        return code

    def _tell_how_to_resume(self, folder: Path) -> None:
        print(
            f"to go on: python -m runner resume={shlex.quote(self._shown(folder))}",
            file=sys.stderr,
            flush=True,
        )

    def _shown(self, path: Path) -> str:
        """A path as short as it can be typed."""
        near = path.is_relative_to(self._shell_folder)
        return str(path.relative_to(self._shell_folder)) if near else str(path)

    @staticmethod
    def _print(line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:  # `python -m runner | head`: what was measured counts, not who reads along
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @staticmethod
    def show(error: RunnerError, masking: Masking) -> ExitCode:
        """Tell an error, and what the command is to end with."""
        print(masking.mask(f"error: {error}"), file=sys.stderr)
        return exit_code_of(error)


def _end_in_order() -> None:
    """Have SIGINT and SIGTERM raise from here on: what is begun is to be taken back. A run has its own way with them.

    While configs are composed they end the program at once (`runner.__main__`): libraries may lose an exception there.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
