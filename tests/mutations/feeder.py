"""Worker processes that feed the inputs of a kind, within bounds of time and memory, and what came of each input."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from random import Random

from tests.mutations.kind import Kind

# A worker that has got through so many inputs is replaced: what libraries keep for ever must not count against an input.
RENEWED_AFTER = 2_000
_START_LIMIT_S = 120.0
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Verdict:
    """What came of one input.

    Attributes:
        idx: Its number; with the seed, it makes the input again. -1 for one from a file.
        answer: How it was accepted, or the class of the error that refused it.
        wrong: What happened instead of an answer; empty if there was one.
        took_s: CPU time.
    """

    idx: int
    answer: str = ""
    wrong: str = ""
    took_s: float = 0.0


@dataclass
class Tally:
    """What came of the inputs of one kind."""

    kind: type[Kind]
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[Verdict, Path]] = field(default_factory=list)
    slowest: Verdict = Verdict(-1)
    took_s: float = 0.0

    @property
    def n_inputs(self) -> int:
        """Fed so far."""
        return self.accepted.total() + self.refused.total() + len(self.wrong)

    def add(self, verdict: Verdict, reproducer: Path) -> None:
        """Count one; the file is for a wrong one."""
        if verdict.wrong:
            self.wrong.append((verdict, reproducer))
        elif verdict.answer[:1].isupper():
            self.refused[verdict.answer] += 1
        else:
            self.accepted[verdict.answer] += 1
        self.took_s += verdict.took_s
        if verdict.took_s > self.slowest.took_s:
            self.slowest = verdict


def feed_kind(kind: type[Kind], *, count: int, seed: int, n_workers: int, reproducers: Path) -> Tally:
    """Feed so many inputs to a kind's reader; a file is left in `reproducers` for each input that went wrong."""
    tally, lock = Tally(kind), threading.Lock()

    def lane(first: int) -> None:
        for verdict, data in feed(kind, seed=seed, indices=range(first, count, n_workers)):
            path = reproducers / f"{kind.name}-{seed}-{verdict.idx}"
            with lock:
                if verdict.wrong:
                    reproducers.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                    print(
                        f"WRONG {kind.name} {verdict.idx}: {last_line(verdict.wrong)}",
                        file=sys.stderr,
                        flush=True,
                    )
                tally.add(verdict, path)

    with ThreadPoolExecutor(n_workers) as lanes:
        list(lanes.map(lane, range(n_workers)))
    return tally


def last_line(text: str) -> str:
    """The line that says most."""
    return (text.strip().splitlines() or [""])[-1]


def feed(
    kind: type[Kind], *, seed: int, indices: Sequence[int], data: bytes | None = None
) -> Iterator[tuple[Verdict, bytes]]:
    """Verdicts in the order of the indices, each with its input if it went wrong; `data` instead of the indices' inputs."""
    with tempfile.TemporaryDirectory(prefix="rtfleet-mutations-") as scratch:
        current = Path(scratch, "input")
        left = list(indices)
        while left:
            part, left = left[:RENEWED_AFTER], left[RENEWED_AFTER:]
            while part:
                for verdict in _one_worker(kind, seed, part, data, Path(scratch)):
                    part = part[1:]
                    yield verdict, current.read_bytes() if verdict.wrong else b""


def _one_worker(
    kind: type[Kind], seed: int, indices: list[int], data: bytes | None, scratch: Path
) -> Iterator[Verdict]:
    """Verdicts until the worker has done all, or died of one."""
    ours, theirs = _SPAWN.Pipe()
    folder = Path(tempfile.mkdtemp(dir=scratch))
    worker = _SPAWN.Process(
        target=_work, args=(theirs, kind, _Order(seed, indices, data, folder, scratch / "input"))
    )
    worker.start()
    theirs.close()
    try:
        try:
            if not ours.poll(_START_LIMIT_S) or ours.recv() != "ready":
                raise TimeoutError(f"no worker for {kind.name}")
        except EOFError as exc:
            raise RuntimeError(f"no worker for {kind.name}: {_stderr(folder)}") from exc
        for idx in indices:
            if not _answers(ours, worker, kind.limit_s):
                _dump(worker)
                worker.kill()
                worker.join()
                yield Verdict(idx, wrong=f"{_stderr(folder)}\nhang: no answer within {kind.limit_s:g} s")
                return
            try:
                verdict = ours.recv()
            except EOFError:
                worker.join()
                yield Verdict(idx, wrong=f"{_stderr(folder)}\ndied: the worker ended with {worker.exitcode}")
                return
            yield verdict
    finally:
        ours.close()
        worker.join(10.0)
        if worker.is_alive():
            worker.kill()
            worker.join()
        worker.close()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(ours: Connection, worker: SpawnProcess, limit_s: float) -> bool:
    """Whether it answers within that much CPU time of its own, or, should it wait for something, ten times as much of the clock."""
    began_s, deadline_s = _cpu_s(worker), time.monotonic() + 10 * limit_s
    while time.monotonic() < deadline_s and _cpu_s(worker) - began_s < limit_s:
        if ours.poll(min(limit_s, 5.0)):
            return True
    return bool(ours.poll())


def _dump(worker: SpawnProcess) -> None:
    """Have it write where it is."""
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGUSR1)
    time.sleep(0.5)  # there is nothing to be awaited


def _cpu_s(worker: SpawnProcess) -> float:
    try:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _stderr(folder: Path) -> str:
    return (folder / "stderr").read_text(errors="replace")[-8000:]


# In the worker


@dataclass(frozen=True)
class _Order:
    """What a worker is to do.

    Attributes:
        seed: Makes the inputs, together with the indices.
        indices: Of the inputs.
        data: The input instead.
        folder: Its own.
        current: The file that holds the input that is being fed.
    """

    seed: int
    indices: list[int]
    data: bytes | None
    folder: Path
    current: Path


def _work(connection: Connection, kind: type[Kind], order: _Order) -> None:
    folder = order.folder
    stderr = os.open(folder / "stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(stderr, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    faulthandler.register(signal.SIGUSR1, file=stderr)
    (folder / "scratch").mkdir()
    os.chdir(folder / "scratch")
    logging.raiseExceptions = True
    logging.getLogger().addHandler(_Tracebacks())
    subject = kind(folder / "scratch")
    _bound_memory(kind.memory_mib << 20)
    connection.send("ready")
    for idx in order.indices:
        made = (
            order.data if order.data is not None else subject.make(Random(f"{order.seed}/{kind.name}/{idx}"))
        )
        order.current.write_bytes(made)
        began_s = time.process_time()
        answer, wrong = _fed(subject, made)
        took_s = time.process_time() - began_s
        said = _said(stderr)
        if not wrong and ("Traceback" in said or "--- Logging error ---" in said):
            wrong = f"{said}\na traceback on standard error, or in the log"
        connection.send(Verdict(idx, answer, wrong[-8000:], took_s))
    subject.close()


def _fed(subject: Kind, data: bytes) -> tuple[str, str]:
    """The answer, and what was wrong with it."""
    try:
        return subject.feed(data), ""
    except subject.refusals as exc:
        if _short_of_memory(exc):
            return "", f"{_trace(exc)}\nmemory: more than {subject.memory_mib} MiB"
        try:
            str(exc).encode()
        except (UnicodeEncodeError, ValueError) as unprintable:
            return "", f"{_trace(exc)}\nthe refusal cannot be printed: {unprintable}"
        return type(exc).__name__, ""
    except MemoryError as exc:
        return "", f"{_trace(exc)}\nmemory: more than {subject.memory_mib} MiB"
    except BaseException as exc:  # noqa: BLE001 - that is what is looked for
        return "", _trace(exc)


def _trace(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exc, limit=-30))
    except BaseException:  # noqa: BLE001 - an error that cannot even be shown
        return f"{type(exc).__name__}, which cannot be shown"


def _short_of_memory(exc: BaseException | None) -> bool:
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        if isinstance(exc, MemoryError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _bound_memory(more_bytes: int) -> None:
    pages, *_ = Path("/proc/self/statm").read_text().split()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(pages) * resource.getpagesize() + more_bytes, hard))


def unbounded_memory() -> None:
    """For programs that a worker starts: the bound is the worker's own."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _said(stderr: int) -> str:
    """What came on standard error since the last call."""
    n_bytes = os.fstat(stderr).st_size
    if n_bytes == 0:
        return ""
    text = os.pread(stderr, min(n_bytes, 1 << 16), 0).decode(errors="replace")
    os.ftruncate(stderr, 0)
    return text


class _Tracebacks(logging.Handler):
    """Shows what is logged with a traceback, and formats everything else as a log file would."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.levelno >= logging.WARNING:
            print(f"Traceback in the log: {text!a}: {record.exc_info[1]!r:.500}", file=sys.stderr, flush=True)
