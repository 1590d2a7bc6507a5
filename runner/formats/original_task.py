"""A task in the words of the original (times in ms), and what it is here.

There the offsets were slept one after the other, so they add up; a priority above 127 (meant as EDF) ran as 0; `deadline` was never used;
a job that was not finished at the next release was killed, and that release skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner.errors import UsageError
from runner.formats.notes import FoundSet, Note
from runner.model import WORKLOADS, OverrunPolicy, Task, TaskSet
from runner.tasksets.written import nearest
from runner.text.excerpt import excerpt
from runner.units import NS_PER_MS, parse_bytes

_LOWEST_PRIORITY = 127
#: Capability quota that does for every program of the original's; means nothing here.
_CAPS = 235
_DEFAULT_QUOTA = "100M"
#: The programs that both have.
PACKAGES = tuple(name for name in WORKLOADS if name not in ("spin", "executable"))


@dataclass(frozen=True, kw_only=True)
class OriginalTask:
    """The fields as the original names them; times in ms."""

    pkg: str
    priority: int
    deadline_ms: int
    period_ms: int
    criticaltime_ms: int
    numberofjobs: int
    offset_ms: int
    quota: str
    caps: int
    cores: int
    core: int
    arg1: int

    def task(self, where: str, idx: int, offset_before_ms: int) -> tuple[Task, list[Note]]:
        """The task here, and what of this one it does not hold.

        Args:
            where: For messages.
            idx: Its place in the set.
            offset_before_ms: When the task before it was started.

        Raises:
            UsageError: there is no such task here; names the field.
        """
        notes = self._notes(where)
        if self.pkg not in PACKAGES:
            at = f"{where}, pkg"
            raise UsageError(f"pkg is {excerpt(self.pkg)}", where=at, next_step=nearest(self.pkg, PACKAGES))
        optional = WORKLOADS[self.pkg].get("arg1", True)
        arguments = {} if optional and self.arg1 == 0 else {"arg1": self.arg1}
        if self.cores > 1 and not 0 <= self.core < self.cores:
            raise UsageError(
                f"coreoffset is {self.core}, outside of the {self.cores} cores",
                where=where,
                next_step="choose 0 … cores - 1",
            )
        try:
            task = Task(
                name=f"{self.pkg}{idx}",
                period_ns=self.period_ms * NS_PER_MS or None,
                offset_ns=(offset_before_ms + self.offset_ms) * NS_PER_MS,
                priority_rank=0 if self.priority > _LOWEST_PRIORITY else self.priority,
                n_jobs=self.numberofjobs,
                workload=self.pkg,
                workload_args=arguments,
                kill_after_start_ns=self.criticaltime_ms * NS_PER_MS or None,
                mem_limit_bytes=_quota_bytes(self.quota, where),
                cpu_affinity=(self.core,) if self.cores > 1 else (),
            )
        except UsageError as exc:
            raise UsageError(exc.what, where=exc.where or where, next_step=exc.next_step) from exc
        return task, notes

    def _notes(self, where: str) -> list[Note]:
        notes = []
        if self.priority > _LOWEST_PRIORITY:
            what = f"{self.priority}, meant as EDF, ran as 0, the most urgent: it is 0"
            notes.append(Note(f"{where}, priority", what, lost=False))
        if self.deadline_ms:
            what = f"{self.deadline_ms} ms was never used there: the deadline is the period"
            notes.append(Note(f"{where}, deadline", what, lost=False))
        if self.caps != _CAPS:
            notes.append(Note(f"{where}, caps", f"{self.caps} capabilities are not carried"))
        return notes

    @staticmethod
    def of(task: Task, priority: int, offset_before_ms: int) -> OriginalTask:
        """The task in the original's words; what these cannot say is left out or rounded down to ms.

        Raises:
            UsageError: there is no such program there.
        """
        if task.workload not in PACKAGES:
            at = f"task {task.name!r}.workload"
            raise UsageError(
                f"{at} is {excerpt(task.workload)}, which the original does not have",
                where=at,
                next_step=f"choose one of: {', '.join(PACKAGES)}",
            )
        argument = task.workload_args.get("arg1", 0)
        cpus = task.cpu_affinity if len(task.cpu_affinity) == 1 else ()
        return OriginalTask(
            pkg=task.workload,
            priority=priority,
            deadline_ms=0,
            period_ms=_ms(task.period_ns),
            criticaltime_ms=_ms(task.kill_after_start_ns),
            numberofjobs=task.n_jobs,
            offset_ms=max(0, _ms(task.offset_ns) - offset_before_ms),
            quota=_DEFAULT_QUOTA
            if task.mem_limit_bytes is None
            else f"{max(1, task.mem_limit_bytes >> 20)}M",
            caps=_CAPS,
            cores=max(2, cpus[0] + 1) if cpus else 0,
            core=cpus[0] if cpus else 0,
            arg1=argument if isinstance(argument, int) else 0,
        )


def _ms(value_ns: int | None) -> int:
    return 0 if value_ns is None else max(1, value_ns // NS_PER_MS) if value_ns else 0


def _quota_bytes(quota: str, where: str) -> int | None:
    if not quota[-1:].isalpha():
        raise UsageError(
            f"quota is {excerpt(quota)}, without a unit",
            where=f"{where}, quota",
            next_step='write it like "100M"',
        )
    return parse_bytes(quota, key="quota") or None


def found_set(tasks: Sequence[tuple[str, OriginalTask]], name: str, notes: Iterable[Note] = ()) -> FoundSet:
    """The set of such tasks, each with its place for messages.

    Raises:
        UsageError: there is no such set here.
    """
    found, all_notes, offset_ms = [], list(notes), 0
    for idx, (where, original) in enumerate(tasks):
        task, more = original.task(where, idx, offset_ms)
        offset_ms += original.offset_ms
        found.append(task)
        all_notes += more
    taskset = TaskSet(tuple(found), name=name, overrun_policy=OverrunPolicy.KILL_AND_SKIP)
    return FoundSet(taskset, tuple(all_notes))


def original_tasks(taskset: TaskSet) -> list[OriginalTask]:
    """The tasks of a set in the original's words; ranks as they are where they fit, else by their order.

    Raises:
        UsageError: as `OriginalTask.of`.
    """
    ranks = sorted({task.priority_rank for task in taskset.tasks})
    fit = ranks[-1] <= _LOWEST_PRIORITY
    found, offset_ms = [], 0
    for task in taskset.tasks:
        priority = task.priority_rank if fit else ranks.index(task.priority_rank)
        found.append(OriginalTask.of(task, priority, offset_ms))
        offset_ms += found[-1].offset_ms
    return found
