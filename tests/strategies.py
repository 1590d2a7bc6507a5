"""Hypothesis strategies for tasks and task sets: anything the model accepts, and small ones for exhaustive checks."""

from __future__ import annotations

from hypothesis import strategies as st

from runner.model import MAX_TASKS, OverrunPolicy, Policy, Task, TaskSet, WorkloadArg
from runner.model.task import DL_PERIOD_MAX_NS, DL_PERIOD_MIN_NS, DL_RUNTIME_MIN_NS, MAX_CPUS
from runner.units import NS_PER_S, NS_PER_US

#: Anything a name, a path or an argument may hold: spaces, quotes, percent signs, line breaks, other scripts.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
#: Anything a name may be: one line of text.
names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Cs")), min_size=1, max_size=20
)
times_ns = st.integers(1, 100 * NS_PER_S)
_ARG1_WORKLOADS = ("pi", "tumatmul", "linpack", "cond_mod", "cond_42")


@st.composite
def workloads(draw: st.DrawFn) -> tuple[str, dict[str, WorkloadArg]]:
    """A workload with the arguments that it takes."""
    kind = draw(st.sampled_from(["spin", "greeting", "arg1", "idle", "executable"]))
    arguments: dict[str, WorkloadArg] = {}
    match kind:
        case "greeting":
            return draw(st.sampled_from(["hey", "namaste"])), arguments
        case "arg1":
            return draw(st.sampled_from(_ARG1_WORKLOADS)), {"arg1": draw(st.integers(0, (1 << 63) - 1))}
        case "idle":
            return "idle", draw(st.one_of(st.just({}), st.fixed_dictionaries({"arg1": st.integers(0, 1000)})))
        case "executable":
            arguments["path"] = "/" + draw(texts)
            arguments["argv"] = tuple(draw(st.lists(texts, max_size=3)))
            return "executable", arguments
        case _:
            return "spin", {"cpu_ns": draw(times_ns)}


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Any valid task."""
    name, rank, offset_ns = draw(names), draw(st.integers(0, 47)), draw(st.integers(0, NS_PER_S))
    policy = draw(st.sampled_from(Policy))
    n_jobs = draw(st.integers(1, 1000))
    cpus = tuple(draw(st.sets(st.integers(0, MAX_CPUS - 1), max_size=3)))
    if policy is Policy.DEADLINE:
        period_ns = draw(st.integers(DL_PERIOD_MIN_NS, DL_PERIOD_MAX_NS))
        deadline_ns = draw(st.integers(DL_RUNTIME_MIN_NS, period_ns))
        return Task(
            name=name,
            period_ns=period_ns,
            deadline_ns=deadline_ns,
            wcet_ns=draw(st.integers(DL_RUNTIME_MIN_NS, deadline_ns)),
            offset_ns=offset_ns,
            n_jobs=n_jobs,
            policy=policy,
            cpu_affinity=cpus,
        )
    period = draw(st.none() | times_ns)
    workload, arguments = draw(workloads())
    return Task(
        name=name,
        period_ns=period,
        wcet_ns=draw(st.none() | times_ns),
        deadline_ns=draw(st.none() | times_ns),
        offset_ns=offset_ns,
        priority_rank=rank,
        n_jobs=1 if period is None else n_jobs,
        policy=policy,
        workload=workload,
        workload_args=arguments,
        kill_after_start_ns=draw(st.none() | times_ns),
        mem_limit_bytes=draw(st.none() | st.integers(1, 1 << 40)),
        cpu_affinity=cpus,
    )


@st.composite
def tasksets(draw: st.DrawFn, *, max_tasks: int = 8) -> TaskSet:
    """Any valid concrete task set."""
    return TaskSet(
        tuple(draw(st.lists(tasks(), min_size=1, max_size=min(max_tasks, MAX_TASKS)))),
        name=draw(names),
        overrun_policy=draw(st.sampled_from(OverrunPolicy)),
        admission_control=draw(st.booleans()),
        stop_ns=draw(st.none() | times_ns),
    )


#: Small sets keep all times at multiples of this: the kernel's least period under SCHED_DEADLINE.
SMALL_UNIT_NS = 100 * NS_PER_US


@st.composite
def small_tasks(draw: st.DrawFn, policies: tuple[Policy, ...]) -> Task:
    """A `spin` task with a period of a few units; overload, arbitrary deadlines and kills are common."""

    def units(low: int, high: int) -> int:
        return draw(st.integers(low, high)) * SMALL_UNIT_NS

    policy = draw(st.sampled_from(policies))
    period_ns = units(2, 12)
    deadline_ns = draw(st.none() | st.just(units(1, 20)))
    runtime_ns = None
    if policy is Policy.DEADLINE:
        deadline_ns = min(deadline_ns or period_ns, period_ns)
        runtime_ns = min(units(1, 6), deadline_ns)
    one_shot = policy is not Policy.DEADLINE and draw(st.integers(0, 9)) == 0
    return Task(
        period_ns=None if one_shot else period_ns,
        wcet_ns=units(1, 6) if runtime_ns is None else runtime_ns,
        workload_args={} if runtime_ns is None else {"cpu_ns": units(1, 6)},
        deadline_ns=deadline_ns,
        dl_runtime_ns=runtime_ns,
        offset_ns=units(0, 6),
        priority_rank=draw(st.integers(0, 2)),
        n_jobs=1 if one_shot else draw(st.integers(1, 7)),
        policy=policy,
        kill_after_start_ns=draw(st.none() | st.just(units(1, 8))),
    )


@st.composite
def small_tasksets(
    draw: st.DrawFn, policies: tuple[Policy, ...] = (Policy.FIFO, Policy.DEADLINE, Policy.OTHER)
) -> TaskSet:
    """Up to four small tasks under any overrun policy, all admitted; every instant is a multiple of `SMALL_UNIT_NS`."""
    return TaskSet(
        tuple(draw(st.lists(small_tasks(policies), min_size=1, max_size=4))),
        overrun_policy=draw(st.sampled_from(OverrunPolicy)),
        admission_control=False,
        stop_ns=draw(st.none() | st.integers(1, 80).map(lambda units: units * SMALL_UNIT_NS)),
    )
