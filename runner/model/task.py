"""One task: what runs, when it is released, and what it needs.

Times are integer nanoseconds. A `Task` is frozen and checks itself: whatever holds one holds a valid one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from runner.model.refusal import can_be_passed, check, check_name, member_of, refusal
from runner.text.excerpt import excerpt
from runner.units import MAX_TIME_NS, NS_PER_S

MAX_CPUS = 64
MAX_JOBS_PER_TASK = 10_000_000
# How long a one-shot task without a deadline may take before its set is ended.
ONE_SHOT_LIMIT_NS = 10 * NS_PER_S
# SCHED_DEADLINE's own limits: kernel/sched/deadline.c (DL_SCALE, sysctl_sched_dl_period_min and _max).
DL_RUNTIME_MIN_NS = 1024
DL_PERIOD_MIN_NS = 100_000
DL_PERIOD_MAX_NS = (1 << 22) * 1000

WorkloadArg = int | str | tuple[str, ...]


class Policy(StrEnum):
    """The scheduling class of a task."""

    FIFO = "fifo"
    RR = "rr"
    #: SCHED_DEADLINE: EDF with a constant-bandwidth server per task.
    DEADLINE = "deadline"
    #: SCHED_OTHER: no real-time class.
    OTHER = "other"


_NUMBERS = (
    *("period_ns", "wcet_ns", "deadline_ns", "offset_ns", "priority_rank", "n_jobs"),
    *("kill_after_start_ns", "mem_limit_bytes", "dl_runtime_ns", "jitter_ns"),
)

#: Workload name -> the arguments it takes, and whether each may be left out.
WORKLOADS: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {
        "spin": {"cpu_ns": True},
        "hey": {"arg1": True},
        "namaste": {"arg1": True},
        "pi": {"arg1": False},
        "tumatmul": {"arg1": False},
        "linpack": {"arg1": False},
        "cond_mod": {"arg1": False},
        "cond_42": {"arg1": False},
        "idle": {"arg1": True},
        "executable": {"path": False, "argv": True},
    }
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A recurring piece of work.

    Attributes:
        name: For tables and messages.
        period_ns: Time between releases; None for a one-shot task.
        wcet_ns: C, the CPU time a job is declared to need; what `spin` uses if its `cpu_ns` is not given.
        deadline_ns: D, relative to the release; None takes the period (implicit), or no deadline for a one-shot task.
        offset_ns: O, first release after the common start instant.
        priority_rank: 0 is the most urgent; only the order counts. Ignored by SCHED_DEADLINE and SCHED_OTHER.
        n_jobs: Releases, from the first on.
        policy: Scheduling class.
        workload: A name of `WORKLOADS`.
        workload_args: Its arguments: `cpu_ns`, `arg1`, or `path` (on this computer) and `argv`.
        kill_after_start_ns: Critical time: a job is killed this long after its start; None: never.
        mem_limit_bytes: Memory that a job may have; None: as much as the guest has.
        cpu_affinity: CPUs the task may run on; empty: all.
        dl_runtime_ns: SCHED_DEADLINE budget; None takes `wcet_ns`.
        jitter_ns: J: a job arrives up to this long after its release, from which response and deadline count on. For analysis and
            simulation (`runner.model.arrival`); guests release punctually, and refuse it.

    Raises:
        UsageError: when a value is out of range, or two contradict each other; names the task and the field.
    """

    name: str = "task"
    period_ns: int | None
    wcet_ns: int | None = None
    deadline_ns: int | None = None
    offset_ns: int = 0
    priority_rank: int = 0
    n_jobs: int = 1
    policy: Policy = Policy.FIFO
    workload: str = "spin"
    workload_args: Mapping[str, WorkloadArg] = field(default_factory=dict)
    kill_after_start_ns: int | None = None
    mem_limit_bytes: int | None = None
    cpu_affinity: tuple[int, ...] = ()
    dl_runtime_ns: int | None = None
    jitter_ns: int = 0

    def __post_init__(self) -> None:
        check_name(self.name, "task")
        self._check_numbers()
        object.__setattr__(self, "policy", member_of(Policy, self.policy, f"task {self.name!r}.policy"))
        object.__setattr__(self, "workload_args", MappingProxyType(dict(self.workload_args)))
        object.__setattr__(self, "cpu_affinity", tuple(sorted(set(self.cpu_affinity))))
        self._check_times()
        self._check_workload()
        if self.policy is Policy.DEADLINE:
            self._check_sched_deadline()

    def _check_numbers(self) -> None:
        """Before anything is computed with them, or shown."""
        given = [(name, getattr(self, name)) for name in _NUMBERS]
        given += [(f"workload_args.{name}", value) for name, value in self.workload_args.items()]
        for name, value in given:
            if isinstance(value, int) and value.bit_length() > 63:
                raise refusal(f"task {self.name!r}.{name}", f"is {excerpt(value)}, beyond 64 bits")

    def _check_times(self) -> None:
        at = f"task {self.name!r}"
        for name in (
            "period_ns",
            "wcet_ns",
            "deadline_ns",
            "kill_after_start_ns",
            "mem_limit_bytes",
            "dl_runtime_ns",
        ):
            value = getattr(self, name)
            if value is not None:
                check(value > 0, f"{at}.{name}", f"is {value}, must be more than 0")
                check(value <= MAX_TIME_NS, f"{at}.{name}", f"is {value}, more than {MAX_TIME_NS}")
        check(
            0 <= self.offset_ns <= MAX_TIME_NS, f"{at}.offset_ns", f"is {self.offset_ns}, must be 0 or more"
        )
        check(
            0 <= self.jitter_ns <= MAX_TIME_NS, f"{at}.jitter_ns", f"is {self.jitter_ns}, must be 0 or more"
        )
        check(self.priority_rank >= 0, f"{at}.priority_rank", "is negative; 0 is the most urgent")
        check(
            1 <= self.n_jobs <= MAX_JOBS_PER_TASK,
            f"{at}.n_jobs",
            f"is {self.n_jobs}, must be 1…{MAX_JOBS_PER_TASK}",
        )
        if self.period_ns is None:
            check(
                self.n_jobs == 1,
                f"{at}.n_jobs",
                "is more than 1 for a one-shot task",
                "give the task a period",
            )
        check(
            self.end_ns <= MAX_TIME_NS,
            f"{at}.n_jobs",
            "the last release lies beyond the range of 64-bit time",
        )
        check(all(0 <= cpu < MAX_CPUS for cpu in self.cpu_affinity), f"{at}.cpu_affinity", "has no such CPU")

    def _check_workload(self) -> None:
        at = f"task {self.name!r}"
        known = WORKLOADS.get(self.workload)
        if known is None:
            raise refusal(
                f"{at}.workload", f"is {excerpt(self.workload)}", f"choose one of: {', '.join(WORKLOADS)}"
            )
        for name in self.workload_args:
            check(
                name in known,
                f"{at}.workload_args.{name}",
                f"{self.workload!r} takes only: {', '.join(known) or '-'}",
            )
        for name, optional in known.items():
            check(
                optional or name in self.workload_args,
                f"{at}.workload_args.{name}",
                f"{self.workload!r} needs it",
            )
        if self.workload == "spin":
            check(
                self.spin_ns is not None,
                f"{at}.wcet_ns",
                "is missing: spin needs it, or workload_args.cpu_ns",
            )
            check((self.spin_ns or 0) > 0, f"{at}.workload_args.cpu_ns", "must be more than 0")
        arg1 = self.workload_args.get("arg1", 0)
        check(
            isinstance(arg1, int) and 0 <= arg1 < 1 << 63,
            f"{at}.workload_args.arg1",
            f"is {excerpt(arg1)}, not a count",
        )
        if self.workload == "executable":
            for name, value in self.workload_args.items():
                for word in (value,) if isinstance(value, str | int) else value:
                    check(
                        can_be_passed(str(word)),
                        f"{at}.workload_args.{name}",
                        f"is {excerpt(value)}, which no program can be given: it has a null byte, or is no text",
                    )

    def _check_sched_deadline(self) -> None:
        at = f"task {self.name!r}"
        check(self.period_ns is not None, f"{at}.period_ns", "is missing: SCHED_DEADLINE needs a period")
        runtime, deadline, period = self.dl_budget_ns, self.relative_deadline_ns, self.period_ns
        if runtime is None or deadline is None or period is None:
            raise refusal(f"{at}.dl_runtime_ns", "is missing: SCHED_DEADLINE needs it, or wcet_ns")
        budget = "dl_runtime_ns" if self.dl_runtime_ns is not None else "wcet_ns"
        check(
            runtime <= deadline,
            f"{at}.{budget}",
            f"is {runtime} ns, more than the deadline of {deadline} ns: SCHED_DEADLINE needs runtime ≤ deadline ≤ period",
            "shorten the runtime or lengthen the deadline",
        )
        check(
            deadline <= period,
            f"{at}.deadline_ns",
            f"is {deadline} ns, more than the period of {period} ns: SCHED_DEADLINE needs runtime ≤ deadline ≤ period",
            "shorten the deadline, or use policy fifo",
        )
        check(
            runtime >= DL_RUNTIME_MIN_NS,
            f"{at}.{budget}",
            f"is {runtime} ns, the kernel's least is {DL_RUNTIME_MIN_NS}",
        )
        check(
            DL_PERIOD_MIN_NS <= period <= DL_PERIOD_MAX_NS,
            f"{at}.period_ns",
            f"is {period} ns; the kernel takes {DL_PERIOD_MIN_NS}…{DL_PERIOD_MAX_NS} under SCHED_DEADLINE",
        )
        check(
            self.workload != "executable",
            f"{at}.policy",
            "is deadline, but the kernel forbids a SCHED_DEADLINE thread to start a process",
            "use policy fifo, rr or other for an executable",
        )

    @property
    def relative_deadline_ns(self) -> int | None:
        """D; the period where no deadline was given; None for a one-shot task without one."""
        return self.deadline_ns if self.deadline_ns is not None else self.period_ns

    @property
    def spin_ns(self) -> int | None:
        """CPU time that a job of workload `spin` uses; None where none is told."""
        given = self.workload_args.get("cpu_ns", self.wcet_ns)
        return given if isinstance(given, int) else None

    @property
    def dl_budget_ns(self) -> int | None:
        """SCHED_DEADLINE's runtime Q."""
        return self.dl_runtime_ns if self.dl_runtime_ns is not None else self.wcet_ns

    @property
    def utilization(self) -> Fraction | None:
        """C/T exactly; None where either is unknown."""
        if self.wcet_ns is None or self.period_ns is None:
            return None
        return Fraction(self.wcet_ns, self.period_ns)

    @property
    def end_ns(self) -> int:
        """When the last job's period and deadline are both over, after the start instant."""
        last_release = self.offset_ns + (self.n_jobs - 1) * (self.period_ns or 0)
        limits = (
            self.period_ns,
            self.relative_deadline_ns,
            None if self.period_ns else self.kill_after_start_ns,
        )
        return last_release + max((limit for limit in limits if limit is not None), default=ONE_SHOT_LIMIT_NS)

    def release_ns(self, job_idx: int) -> int:
        """Nominal release of a job, after the start instant: O + kT."""
        return self.offset_ns + job_idx * (self.period_ns or 0)

    def __getstate__(self) -> dict[str, Any]:
        """For `pickle`, which knows no read-only mapping; what comes back was checked where it was made."""
        return {**self.__dict__, "workload_args": dict(self.workload_args)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, workload_args=MappingProxyType(state["workload_args"]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they go into tables and into the identity of the set.

        Without `jitter_ns` where there is none: a set from before there was such a field keeps its identity.
        """
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not self.jitter_ns:
            del plain["jitter_ns"]
        plain["policy"] = self.policy.value
        plain["workload_args"] = {
            key: list(v) if isinstance(v, tuple) else v for key, v in self.workload_args.items()
        }
        plain["cpu_affinity"] = list(self.cpu_affinity)
        return plain
