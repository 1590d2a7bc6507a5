"""Small task sets to try things out with; all of them run on a guest, only `Spin0TaskSet` in the simulation as well.

| class | tasks |
|---|---|
| `HelloWorldTaskSet` | `hey`, once |
| `Hey0TaskSet` | `hey`, every 2 s, 5 times |
| `Hey3TaskSet` | two times `hey`, every 5 s and every 10 s |
| `Hey6TaskSet` | `hey` in one variant per priority rank (48) |
| `Namaste0TaskSet` | `namaste`, every 2 s, 5 times |
| `Pi0TaskSet` | `pi` with 2^13, 2^14 and 2^15 terms, as three variants |
| `Tumatmul0TaskSet` | `tumatmul`: primes up to 2^15 |
| `Linpack0TaskSet` | `linpack`: 60 equations |
| `CondMod0TaskSet` | `cond_mod` with an even argument (ends at once) and an odd one (loops), as two variants |
| `Cond420TaskSet` | `cond_42` with 42 (ends at once) and 43,000 (loops), as two variants |
| `Idle0TaskSet` | `idle` for 10 ms: a job that takes time but no processor |
| `Spin0TaskSet` | three tasks with U = .88, rate-monotonic: Burns and Wellings' set D scaled by .95, all deadlines met |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runner.model import Task, TaskSet, WorkloadArg, rank_by
from runner.units import NS_PER_MS, NS_PER_S


def _task(
    workload: str, *, period_ns: int = 200 * NS_PER_MS, n_jobs: int = 5, arg1: int | None = None
) -> Task:
    arguments = {} if arg1 is None else {"arg1": arg1}
    return Task(name=workload, workload=workload, workload_args=arguments, period_ns=period_ns, n_jobs=n_jobs)


def _arguments(*values: int) -> tuple[Mapping[str, WorkloadArg], ...]:
    return tuple({"arg1": value} for value in values)


class _Example(TaskSet):
    """A set with its class's name."""

    def __init__(self, *tasks: Task, choices: Mapping[tuple[int, str], Iterable[Any]] | None = None) -> None:
        super().__init__(tasks, name=type(self).__name__, choices=choices or {})


class HelloWorldTaskSet(_Example):
    """One greeting."""

    def __init__(self) -> None:
        super().__init__(Task(name="hey", workload="hey", period_ns=None))


class Hey0TaskSet(_Example):
    """A greeting every 2 s."""

    def __init__(self) -> None:
        super().__init__(_task("hey", period_ns=2 * NS_PER_S))


class Hey3TaskSet(_Example):
    """Two tasks of equal rank with different periods."""

    def __init__(self) -> None:
        super().__init__(
            _task("hey", period_ns=5 * NS_PER_S, n_jobs=4), _task("hey", period_ns=10 * NS_PER_S, n_jobs=2)
        )


class Hey6TaskSet(_Example):
    """One variant per priority rank."""

    def __init__(self) -> None:
        super().__init__(
            _task("hey", period_ns=5 * NS_PER_S, n_jobs=2), choices={(0, "priority_rank"): range(48)}
        )


class Namaste0TaskSet(_Example):
    """Another greeting every 2 s."""

    def __init__(self) -> None:
        super().__init__(_task("namaste", period_ns=2 * NS_PER_S))


class Pi0TaskSet(_Example):
    """Three sizes of the Leibniz series."""

    def __init__(self) -> None:
        sizes = (2**13, 2**14, 2**15)
        super().__init__(_task("pi", arg1=sizes[0]), choices={(0, "workload_args"): _arguments(*sizes)})


class Tumatmul0TaskSet(_Example):
    """The sieve of Eratosthenes."""

    def __init__(self) -> None:
        super().__init__(_task("tumatmul", arg1=2**15))


class Linpack0TaskSet(_Example):
    """A dense linear system."""

    def __init__(self) -> None:
        super().__init__(_task("linpack", arg1=60))


class CondMod0TaskSet(_Example):
    """A job whose duration hangs on whether its argument is even."""

    def __init__(self) -> None:
        sizes = (3**10 + 1, 3**10)
        super().__init__(_task("cond_mod", arg1=sizes[0]), choices={(0, "workload_args"): _arguments(*sizes)})


class Cond420TaskSet(_Example):
    """A job whose duration hangs on one single value of its argument."""

    def __init__(self) -> None:
        sizes = (42, 43_000)
        super().__init__(_task("cond_42", arg1=sizes[0]), choices={(0, "workload_args"): _arguments(*sizes)})


class Idle0TaskSet(_Example):
    """A job that only sleeps."""

    def __init__(self) -> None:
        super().__init__(_task("idle", arg1=10))


class Spin0TaskSet(_Example):
    """Three tasks that use the processor for known times; a hyperperiod of 4.2 s."""

    def __init__(self) -> None:
        rows_ms = ((28.5, 70, 60), (28.5, 120, 35), (47.5, 200, 21))
        tasks = (
            Task(
                name=f"spin{idx}",
                period_ns=period_ms * NS_PER_MS,
                wcet_ns=round(cost_ms * NS_PER_MS),
                n_jobs=n,
            )
            for idx, (cost_ms, period_ms, n) in enumerate(rows_ms)
        )
        super().__init__(*rank_by(tasks, "period_ns"))
