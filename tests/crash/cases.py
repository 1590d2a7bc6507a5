"""One case: a run that is crashed, perhaps more than once, gone on with to its end, and compared with one that was not."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.crash import data
from tests.crash.forks import Ended, Kill, carried_out
from tests.crash.injector import Crash
from tests.crash.samples import Witness
from tests.crash.subjects import Subject, witness_of

#: The kind of operation at which a process was that somebody else has killed.
KILLED = "anywhere"


_NEVER_EMPTY = (".json", ".yaml", ".txt", ".sqlite", ".parquet")


@dataclass(frozen=True)
class Case:
    """What is done to a run.

    Attributes:
        name: Of the case's folder.
        ends: One for each process but the last, which is left alone.
    """

    name: str
    ends: tuple[Crash | Kill, ...]


@dataclass
class Verdict:
    """What was found.

    Attributes:
        kind: Of the operation at the first crash; None: the run had ended before.
        path: The file concerned.
        n_resumed: How often the run was gone on with.
        n_anew: How often there was nothing to go on with, and the run was begun again.
        n_lost: Sets and measurements that are not there at the end, or were there after a crash and not at the end.
        n_doubled: Measurements that are there twice, or were made again.
        differing: What is not the same as in the undisturbed run.
        wrong: Whatever else is not as it should be.
    """

    kind: str | None = None
    path: str = ""
    n_resumed: int = 0
    n_anew: int = 0
    n_lost: int = 0
    n_doubled: int = 0
    differing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is lost, doubled, different or wrong."""
        return not (self.n_lost or self.n_doubled or self.differing or self.wrong)


def undisturbed(subject: Subject, workshop: Path, end: Crash | None = None) -> tuple[data.Data, Ended]:
    """Run to the end; a `Crash` at 0 says what is to be counted.

    Raises:
        AssertionError: when even that goes wrong.
    """
    folder = _folder(workshop, "undisturbed")
    begin = partial(subject.begin, folder)
    ended = carried_out(begin, end, folder, folder.with_name("output"), execs=subject.execs)
    assert ended.code == subject.expected_code, folder.with_name("output").read_text()
    found = data.read(folder)
    assert (found.n_lost, found.n_doubled, found.unsound) == (0, 0, ""), found
    assert leftovers(folder) == []
    shutil.rmtree(folder.parent)
    return found, ended


def examine(subject: Subject, workshop: Path, expected: data.Data, case: Case) -> Verdict:
    """Carry a case out; its folder stays if something was found."""
    verdict = Verdict()
    folder = _folder(workshop, case.name)
    known: dict[str, str] = {}
    work = partial(subject.begin, folder)
    for number, end in enumerate((*case.ends, None)):
        ended = carried_out(work, end, folder, folder.with_name("output"), execs=subject.execs)
        if number == 0:
            verdict.kind, verdict.path = ended.report.kind, ended.report.path
            if ended.crashed and isinstance(end, Kill):
                verdict.kind = KILLED
        verdict.wrong += [f"left {name}" for name in ended.left]
        if not ended.crashed and ended.code != subject.expected_code:
            verdict.wrong.append("hangs" if ended.code is None else f"exit code {ended.code}")
            break
        if not ended.crashed and not (
            isinstance(end, Crash) and end.at and end.mode.loses_power and not subject.execs
        ):
            break
        _inspect(folder, known, verdict)
        work = _next(subject, folder, verdict)
    _compare(folder, known, expected, verdict)
    if verdict.good:
        shutil.rmtree(folder.parent)
    return verdict


def _next(subject: Subject, folder: Path, verdict: Verdict) -> partial[int]:
    if subject.can_resume(folder):
        verdict.n_resumed += 1
        return partial(subject.resume, folder)
    verdict.n_anew += 1
    return partial(subject.begin, folder)


def _folder(workshop: Path, name: str) -> Path:
    folder = workshop / name / "run"
    folder.mkdir(parents=True)
    return folder


def _inspect(folder: Path, known: dict[str, str], verdict: Verdict) -> None:
    """What a crash has left: a sound file with all that was known, and all that was said to be safe."""
    times, unsound = data.times_after_crash(folder)
    if unsound:
        verdict.wrong.append(f"after the crash: {unsound}")
    _follow(known, times, verdict)
    verdict.n_lost += len(Witness.seen(witness_of(folder)) - times.keys())
    known.update(times)


def _compare(folder: Path, known: dict[str, str], expected: data.Data, verdict: Verdict) -> None:
    found = data.read(folder)
    _follow(known, dict(found.times), verdict)
    verdict.n_lost += found.n_lost
    verdict.n_doubled += found.n_doubled
    verdict.differing += found.differences(expected)
    verdict.wrong += [found.unsound] if found.unsound else []
    verdict.wrong += [f"left: {name}" for name in leftovers(folder)]


def _follow(known: dict[str, str], times: dict[str, str], verdict: Verdict) -> None:
    """What was measured once is there for ever, and is not measured again."""
    verdict.n_lost += len(known.keys() - times.keys())
    verdict.n_doubled += sum(known[run_id] != times[run_id] for run_id in known.keys() & times.keys())


def leftovers(folder: Path) -> list[str]:
    """What should not be in the folder of a run that has ended: temporary files, SQLite's, sockets, files that lost their content."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.name.startswith(".") and path.name != ".hydra")
        or path.name.endswith(("-wal", "-shm", "-journal", ".tmp"))
        or not (path.is_file() or path.is_dir())
        or (path.suffix in _NEVER_EMPTY and path.name != "events.txt" and not path.stat().st_size)
    )
