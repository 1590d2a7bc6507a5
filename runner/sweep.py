"""The runs of a sweep: all validated before the first begins, then carried out, one after the other or by a launcher of Hydra's."""

from __future__ import annotations

import re
import signal
from collections import Counter
from types import FrameType

from runner.campaign import RESUMABLE, Campaign, Part, end_in_order
from runner.config.composer import ConfigComposer, record_of, secrets_in
from runner.config.errors import explained, is_config_error
from runner.config.launching import RunTicket, is_basic, launch
from runner.config.masking import Masking
from runner.config.plan import RunPlan
from runner.config.record import RunRecord, read_record
from runner.config.resuming import Changes, complete_code, config_changes, read_manifest, refuse_changes
from runner.errors import HostError, RunnerError, UsageError, host_error
from runner.exit_codes import ExitCode
from runner.files.durable import replace_text
from runner.fleet import RunState
from runner.monitors.progress import ProgressMonitor
from runner.operator.meter import Meter
from runner.operator.sweep_watch import SweepWatch, SweptRun
from runner.paths import RunPaths
from runner.run_folder.jobs import JobFiles
from runner.run_folder.lock import RunLock, clear_leftovers
from runner.sweep_job import SweepJob

# A sweep ends with the code that asks for attention most.
_WORST_FIRST = (
    ExitCode.BUG,
    ExitCode.USAGE,
    ExitCode.HOST,
    ExitCode.STOPPED,
    ExitCode.BAD_TASKSETS,
    ExitCode.OK,
)
# Of a control file; how many machines stays what it is, for when the run goes on.
_STATE = re.compile(r"(?m)^state:.*$")


class Sweep:
    """A sweep that one command carries out.

    Args:
        composer: Makes the configs.
        campaign: Carries out one run.
        masking: Is told the secrets of each.
        job: What a launcher is handed, to carry out one run in a process of its own.
    """

    def __init__(
        self,
        composer: ConfigComposer,
        campaign: Campaign,
        masking: Masking,
        job: SweepJob,
    ) -> None:
        self._composer = composer
        self._campaign = campaign
        self._masking = masking
        self._job = job
        self._config, self._folder = job.config, job.folder
        self._resuming = job.manner.resuming
        self._configs = composer.sweep(job.config)
        self._meter: Meter | None = None
        self._n_signals: Counter[int] = Counter()

    def run(self) -> ExitCode:
        """To the end of the last run, or until the operator stops one: who does so means all of them.

        Raises:
            UsageError: the sweep is not the one that was begun in this folder.
            RunnerError: the config of one of its runs cannot be meant; none was begun. It says which, and with what values.
        """
        runs = self._validated()
        codes: list[ExitCode] = []
        try:
            end_in_order()
            self._folder.mkdir(parents=True, exist_ok=True)
            with RunLock(self._folder):
                clear_leftovers(self._folder)
                self._begin(runs)
                codes += self._one_by_one(runs) if is_basic(self._config) else self._launched(runs)
        except OSError as exc:
            raise host_error(exc, "hydra.sweep.dir") from exc
        except KeyboardInterrupt:  # before the first
            codes.append(ExitCode.STOPPED)
        code = next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)
        if code in RESUMABLE and RunPaths(self._folder).sweep.exists():
            self._campaign.tell_how_to_resume(self._folder)
        return code

    # Before the first

    def _validated(self) -> list[SweptRun]:
        """All runs, once every one that is still to be carried out has a plan.

        Its objects are made for that, and thrown away.
        """
        swept = [" ".join(one.values()) for one in self._composer.swept(record_of(self._config))]
        runs = []
        for number, values in enumerate(swept):
            title = f"run {number + 1}/{len(swept)} {values}".rstrip()
            try:
                runs.append(self._validate(number, title))
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
        return runs

    def _validate(self, number: int, title: str) -> SweptRun:
        folder = self._folder / self._configs.subfolder(number)
        code = complete_code(read_manifest(RunPaths(folder).manifest)) if self._resuming else None
        if code is not None:
            return SweptRun(number=number, title=title, folder=folder, code=code)
        plan = self._configs.check(number, folder, lambda own: self._masking.learn(secrets_in(own)))
        if plan is not None and self._meter is None:
            self._meter = _meter_of(plan)
        n_sets = getattr(plan.tasksets, "n_variants", None) if plan is not None else None
        return SweptRun(number=number, title=title, folder=folder, n_sets=n_sets)

    def _begin(self, runs: list[SweptRun]) -> None:
        record = record_of(self._config)
        if not RunPaths(self._folder).sweep.exists():
            record.write_sweep(self._folder)
            return
        if not self._resuming:
            raise UsageError(
                f"{self._folder} holds another sweep",
                where="hydra.sweep.dir",
                next_step=f"resume={self._folder} goes on with it; or choose another folder",
            )
        before = read_record(self._folder)
        changes = config_changes(before.config, record.config)
        moved = self._moved(before, record)
        if not self._job.manner.accepted:
            refuse_changes(self._folder, {**moved, **changes})
        for run in runs:
            if f"run {run.number}" in moved and RunPaths(run.folder).record.exists():
                was, _ = moved[f"run {run.number}"]
                raise UsageError(
                    f"run {run.number} of the sweep has begun, with {was}",
                    where=str(run.folder),
                    next_step="what is swept can only be added to, at its end; otherwise start a new sweep",
                )
        if moved or changes:
            record.write_sweep(self._folder)

    def _moved(self, before: RunRecord, now: RunRecord) -> Changes:
        """Runs of a sweep that are not what they were."""
        old, new = (
            [" ".join(one.values()) for one in self._composer.swept(record)] for record in (before, now)
        )
        length = max(len(old), len(new))
        padded = ([*ones, *["(not there)"] * (length - len(ones))] for ones in (old, new))
        return {f"run {number}": (a, b) for number, (a, b) in enumerate(zip(*padded, strict=True)) if a != b}

    # One after the other

    def _one_by_one(self, runs: list[SweptRun]) -> list[ExitCode]:
        watch = SweepWatch(runs, self._meter)
        try:
            with watch:
                for run in runs:
                    if run.code is not None:
                        self._campaign.complete(run.folder)
                        continue
                    watch.began(run.number)
                    code = self._campaign.carry_out(self._configs.config(run.number), run.folder, Part())
                    watch.ended(run.number, code)
                    if code is ExitCode.STOPPED:
                        break
        except KeyboardInterrupt:  # between two runs
            return [*watch.codes, ExitCode.STOPPED]
        return watch.codes

    # By a launcher

    def _launched(self, runs: list[SweptRun]) -> list[ExitCode]:
        files = JobFiles(self._folder)
        watch = SweepWatch(runs, self._meter, lambda: self._look(watch, files))
        for run in runs:
            if run.code is not None:
                self._campaign.complete(run.folder)
        left = watch.waiting
        if not left:
            return watch.codes
        files.open()
        handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with watch:
                self._launch(watch, left)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            files.close()
        stopped = [ExitCode.STOPPED] if self._n_signals else []
        return [*watch.codes, *stopped, *([ExitCode.HOST] if watch.waiting and not stopped else [])]

    def _launch(self, watch: SweepWatch, runs: list[SweptRun]) -> None:
        tickets = [RunTicket(run.number, run.folder, self._configs.runs[run.number]) for run in runs]
        try:
            launch(self._config, self._folder, self._job, tickets)
        except Exception as exc:  # noqa: BLE001 - any launcher, with errors of its own
            if self._n_signals:
                return
            first = next(iter(str(exc).splitlines()), "")
            error = HostError(
                f"the launcher ended with {type(exc).__name__}: {first}",
                where="hydra.launcher",
                next_step="jobs that it had begun may still run: resume the sweep once they have ended",
            )
            watch.say(self._masking.mask(f"error: {error}"))

    def _look(self, watch: SweepWatch, files: JobFiles) -> None:
        """Tell what jobs have told, and them what the operator wants."""
        if self._n_signals:
            files.stop()
        wanted = RunState.KILL if self._n_signals[signal.SIGINT] > 1 else RunState.DRAIN
        for run in watch.waiting:
            code = files.code(run.number)
            if files.began(run.number):
                watch.began(run.number)
            for line in files.new_lines(run.number, "err"):
                watch.say(f"run {run.number + 1}: {line}")
            if code is not None:
                for line in files.new_lines(run.number, "out"):
                    self._campaign.tell(line)
                watch.ended(run.number, code)
            elif self._n_signals and RunPaths(run.folder).control.exists():
                _steer(RunPaths(run.folder), wanted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C and SIGTERM: followed at the next look; a launcher would end its jobs without letting them finish."""
        self._n_signals[number] += 1


def _meter_of(plan: RunPlan) -> Meter | None:
    shown = next((one for one in plan.monitors.values() if isinstance(one, ProgressMonitor)), None)
    return None if shown is None else Meter("sweep", shown.interval_s)


def _steer(paths: RunPaths, wanted: RunState) -> None:
    """Have a run end, on whichever computer it is, as the operator would."""
    text = paths.control.read_text(encoding="utf-8", errors="replace")
    steered = _STATE.sub(f"state: {wanted.value}", text)
    if steered != text:
        replace_text(paths.control, steered)
