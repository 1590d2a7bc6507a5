"""Hypothesis strategies for what can be said in Genode's protocol."""

from __future__ import annotations

from hypothesis import strategies as st

from runner.genode.profiles import ProfileEvent, ProfileEventType
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from runner.units import NS_PER_MS

#: Of the hosts that are spoken to.
VCPUS = 4

_words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12).map(str.strip)
_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,14}", fullmatch=True).map(lambda name: f"x{name}"[:15])
_ms = st.integers(1, 4000).map(lambda ms: ms * NS_PER_MS)


@st.composite
def _tasks(draw: st.DrawFn) -> Task:
    edf = draw(st.booleans())
    period_ns = draw(_ms) if edf else draw(st.none() | _ms)
    number = {"arg1": draw(st.integers(0, 1 << 20))}
    workload = draw(st.sampled_from(["spin", "hey", "pi", "cond_42", "idle"] + ["executable"] * (not edf)))
    arguments: dict[str, object] = {"pi": number, "cond_42": number, "idle": number}.get(workload, {})  # type: ignore[assignment]
    if workload == "executable":
        arguments = {"path": f"/{draw(_names)}", "argv": tuple(draw(st.lists(_words, max_size=8)))}
    return Task(
        period_ns=period_ns,
        wcet_ns=NS_PER_MS,
        offset_ns=draw(st.integers(0, 300)) * NS_PER_MS,
        priority_rank=draw(st.sampled_from([0, 1, 2, 127, 128, 100_000])),
        n_jobs=1 if period_ns is None else draw(st.integers(1, 1000)),
        policy=Policy.DEADLINE if edf else draw(st.sampled_from([Policy.FIFO, Policy.RR])),
        workload=workload,
        workload_args=arguments,  # type: ignore[arg-type]
        kill_after_start_ns=draw(st.none() | _ms),
        mem_limit_bytes=draw(st.none() | st.integers(1, 1 << 40)),
        cpu_affinity=draw(st.sampled_from([(), (0,), (3,), (0, 1), (2, 3), (0, 1, 2, 3)])),
    )


def expressible(*, max_tasks: int = 8) -> st.SearchStrategy[TaskSet]:
    """Task sets that a Genode host with `VCPUS` processors takes; tasks in any order of offsets, ties among them."""
    tasks = st.lists(
        _tasks(),
        min_size=1,
        max_size=max_tasks,
        unique_by=lambda task: task.workload_args.get("path", object()),
    )
    return tasks.map(lambda some: TaskSet(tuple(some), overrun_policy=OverrunPolicy.KILL_AND_SKIP))


profile_events = st.builds(
    ProfileEvent,
    task_id=st.integers(0, 3),
    kind=st.sampled_from(ProfileEventType),
    t_ms=st.integers(0, 50),
)
