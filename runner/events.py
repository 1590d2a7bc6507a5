"""What happens to a task set while it runs, and what is known of it afterwards."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from runner.faults.recovery import Recovery
from runner.model import TaskSet

_TABLE_LINE = "%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s"  # a change makes every digest another one


class ExitType(StrEnum):
    """How a job ended."""

    #: The workload returned 0.
    EXIT = "EXIT"
    #: Killed: its critical time after its start was over.
    EXIT_CRITICAL = "EXIT_CRITICAL"
    #: Killed: still unfinished at the task's next release.
    EXIT_PERIOD = "EXIT_PERIOD"
    #: Killed: still unfinished at its deadline.
    EXIT_DEADLINE = "EXIT_DEADLINE"
    #: Killed from outside, or by the end of the set.
    EXIT_EXTERNAL = "EXIT_EXTERNAL"
    #: The workload failed.
    EXIT_ERROR = "EXIT_ERROR"
    #: Killed: memory limit reached.
    OUT_OF_QUOTA = "OUT_OF_QUOTA"
    #: Killed: capabilities used up (Genode only).
    OUT_OF_CAPS = "OUT_OF_CAPS"
    #: The admission test refused the task.
    NOT_SCHEDULED = "NOT_SCHEDULED"
    #: The release was skipped, because the job before it overran.
    SKIPPED = "SKIPPED"


#: The job was killed at the instant in `finish_ns` rather than finishing by itself.
KILLED = frozenset({ExitType(f"EXIT_{limit}") for limit in ("CRITICAL", "PERIOD", "DEADLINE", "EXTERNAL")})


class JobRecord(NamedTuple):
    """One release of a task and what became of it; times in ns after the set's start instant, None where unknown.

    Attributes:
        task_idx, job_idx: Index of the task in its set, and of the release, both from 0.
        release_ns: Nominal release, O + kT.
        start_ns, finish_ns: When the job first ran; when it finished, or was killed.
        exec_ns: CPU time that it used.
        exit_type: How it ended.
        exit_code: What the workload returned; 128 + signal if a signal ended it.
        preemptions: Involuntary context switches.
        migrations: Changes of CPU that were seen between start and finish.
        cpu_first, cpu_last: CPU at the start, and at the end.
    """

    task_idx: int
    job_idx: int
    release_ns: int | None
    start_ns: int | None
    finish_ns: int | None
    exec_ns: int | None
    exit_type: ExitType
    exit_code: int | None = None
    preemptions: int | None = None
    migrations: int | None = None
    cpu_first: int | None = None
    cpu_last: int | None = None

    @property
    def response_ns(self) -> int | None:
        """R = f - r of a job that finished by itself."""
        if self.exit_type is not ExitType.EXIT or self.finish_ns is None or self.release_ns is None:
            return None
        return self.finish_ns - self.release_ns

    def deadline_abs_ns(self, taskset: TaskSet) -> int | None:
        """d = r + D; None without a deadline or a known release."""
        relative_ns = taskset.tasks[self.task_idx].relative_deadline_ns
        return None if relative_ns is None or self.release_ns is None else self.release_ns + relative_ns

    def missed(self, taskset: TaskSet) -> bool | None:
        """Whether the deadline was missed.

        Finished: f > d. Killed at or after d: True. Killed before d, refused, failed or unknown: None, for such a job says
        nothing about its deadline. A skipped release was never served: True.
        """
        deadline_ns = self.deadline_abs_ns(taskset)
        if deadline_ns is None:
            return None
        if self.exit_type is ExitType.SKIPPED:
            return True
        if self.finish_ns is None:
            return None
        if self.exit_type is ExitType.EXIT:
            return self.finish_ns > deadline_ns
        return True if self.exit_type in KILLED and self.finish_ns >= deadline_ns else None


@dataclass(frozen=True, slots=True)
class StartEvent:
    """The set's tasks are ready; its start instant lies at `t0_guest_ns` of the guest's monotonic clock."""

    t0_guest_ns: int


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """The kernel refused a task's scheduling parameters."""

    task_idx: int
    errno: int
    name: str


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A job is over."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class TaskDoneEvent:
    """A task has no further jobs."""

    task_idx: int
    t_ns: int


@dataclass(frozen=True, slots=True)
class EndEvent:
    """The set is over, and every event before this one is all there is.

    Attributes:
        t_ns: When, after the start instant.
        stopped: Whether it was ended (horizon or operator) before every task had run all its jobs.
    """

    t_ns: int
    stopped: bool


Event = StartEvent | RefusedEvent | JobEvent | TaskDoneEvent | EndEvent


class Outcome(StrEnum):
    """How an attempt at a task set ended; only the first three say something about the task set."""

    #: Every task ran all its jobs.
    COMPLETED = "completed"
    #: Ended at its horizon with work left: an overload, and a valid measurement.
    TIMEOUT = "timeout"
    #: At least one task was refused by the kernel's admission test.
    REJECTED = "rejected"
    #: The operator ended it.
    ABORTED = "aborted"
    #: The guest died.
    GUEST_CRASH = "guest_crash"
    #: Anything else of the infrastructure failed.
    INFRA_ERROR = "infra_error"
    #: The host disturbed it beyond the limits, so it is tried again.
    DISTURBED = "disturbed"


VALID_OUTCOMES = frozenset({Outcome.COMPLETED, Outcome.TIMEOUT, Outcome.REJECTED})


class Validity(StrEnum):
    """How far a valid result is the task set's own doing, and nothing else's."""

    #: Bit-repeatable mode: whoever measures the same identity gets the same table.
    EXACT = "exact"
    #: The host's clock ruled, and the host stayed within the limits.
    UNDISTURBED = "undisturbed"
    #: The host's clock ruled, and the host went beyond the limits in every attempt that it was given.
    DISTURBED = "disturbed"
    #: Simulated: computed from the task set alone.
    COMPUTED = "computed"


#: Results that a second measurement could only repeat.
REPEATABLE = frozenset({Validity.EXACT, Validity.COMPUTED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """What the host did to an attempt while the host's clock ruled; None where it could not be told.

    Attributes:
        steal_ns: CPU time that a hypervisor below took from the host.
        sched_delay_ns: How long QEMU's threads waited for a CPU, in sum.
        clock_drift_ns: By how much the guest's clock ran ahead of the host's (negative: behind).
    """

    steal_ns: int | None = None
    sched_delay_ns: int | None = None
    clock_drift_ns: int | None = None


def _run_id(identity: str | None, repetition: int) -> str:
    if identity is None:  # unique, and growing: tables keyed by it are appended to, not inserted into
        return f"{time.time_ns():016x}{secrets.token_hex(8)}"
    return hashlib.sha256(f"{identity}/{repetition}".encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at one task set, as monitors are told about it.

    Attributes:
        taskset: What runs.
        machine: Name of the machine, `qemu1`.
        attempt: 1 for the first try.
        repetition: 1 … n where each set is to be measured n times.
        submission: Number of the job (`add_job`) that the set belongs to, from 1; `set_idx`: its place there, from 0.
        position: 1 for the first set that the guest runs since its snapshot; later ones feel what ran before.
        recovery: What the machine had to do before it could run it, its last attempt having failed; None: nothing.
        identity: `runner.identity.measurement_identity`; None where a measurement would not repeat.
        facts: What the host says of itself: column of the `runs` table -> value.
        run_id: Unique unless given; with an identity, the same in every run for the same identity and repetition.
    """

    taskset: TaskSet
    machine: str
    attempt: int = 1
    repetition: int = 1
    submission: int = 1
    set_idx: int = 0
    position: int = 1
    recovery: Recovery | None = None
    identity: str | None = None
    facts: Mapping[str, str | int | float | None] = field(default_factory=dict)
    run_id: str = ""
    started_utc: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if not self.run_id:
            object.__setattr__(self, "run_id", _run_id(self.identity, self.repetition))


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What one attempt yielded.

    Attributes:
        outcome: How it ended.
        jobs: In the order in which they were reported.
        t0_guest_ns: The start instant, on the guest's monotonic clock; None if it never came.
        end_ns: When the set was over, after the start instant.
        wall_s: Real seconds from request to end.
        error: What failed, as shown to people; empty for a valid outcome.
        validity: How far it is the task set's own doing; None where nobody judged it.
        disturbance: What the host did to it; None unless the host's clock ruled.
        reused_from: Where the result was taken from instead of being measured: `RUN_ID in PATH`; None if it was measured.
    """

    outcome: Outcome
    jobs: tuple[JobRecord, ...] = ()
    t0_guest_ns: int | None = None
    end_ns: int | None = None
    wall_s: float = 0.0
    error: str = ""
    validity: Validity | None = None
    disturbance: Disturbance | None = None
    reused_from: str | None = None

    @cached_property
    def table_sha256(self) -> str | None:
        """Digest of the job table, whatever order the jobs were reported in; None unless the outcome is valid.

        Of each job a line with its fields, separated by commas, `None` where one is not known; the lines sorted as text.
        """
        if self.outcome not in VALID_OUTCOMES:
            return None
        lines = sorted([_TABLE_LINE % job for job in self.jobs])
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def n_missed(self, taskset: TaskSet) -> int:
        """Jobs that are known to have missed their deadline."""
        return sum(job.missed(taskset) is True for job in self.jobs)

    def schedulable(self, taskset: TaskSet) -> bool | None:
        """Whether no job missed and every job ran to its end; None when the attempt or a failed job leaves it open.

        "No miss in k jobs" is an observation, not a proof.
        """
        if self.outcome not in VALID_OUTCOMES:
            return None
        if self.outcome is Outcome.REJECTED or any(job.missed(taskset) for job in self.jobs):
            return False
        return True if all(job.exit_type is ExitType.EXIT for job in self.jobs) else None
