"""What our session describes is what our guest's task loader understands, parsed natively under sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import TaskSetError
from runner.genode import Tag, encode_descriptions, encode_sized, encode_tag
from runner.model import OverrunPolicy, Policy, Task, TaskSet
from tests.genode_strategies import VCPUS, expressible

#: host_setup/guest/taskset.h
KINDS = ("spin", "hey", "namaste", "pi", "tumatmul", "linpack", "cond_mod", "cond_42", "idle", "executable")
POLICIES = {Policy.FIFO: 0, Policy.RR: 0, Policy.DEADLINE: 2}


Understood = dict[int, tuple[dict[str, str], list[str]]]


def understood(program: Path, tasksets: list[TaskSet]) -> list[Understood]:
    """Of each set, by task id: the numbers that it prints, and the arguments."""
    request = b"".join(
        encode_sized(Tag.SEND_DESCS, encode_descriptions(one, vcpus=VCPUS)) + encode_tag(Tag.CLEAR)
        for one in tasksets
    )
    ended = subprocess.run([program], input=request, capture_output=True, check=True, timeout=60)
    *parts, rest = ended.stdout.decode("ascii").split(f"word {Tag.CLEAR:x}\n")
    assert (len(parts), rest) == (len(tasksets), ""), ended.stdout
    return [_read(part, len(one.tasks)) for part, one in zip(parts, tasksets, strict=True)]


def _read(printed: str, n_tasks: int) -> Understood:
    first, *lines = printed.split("\n")
    assert first == f"tasks {n_tasks}", first
    found: Understood = {}
    numbers: dict[str, str] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        match word:
            case "task" | "jobs":
                if word == "task":
                    numbers = {}
                    found[int(rest.split()[0])] = numbers, []
                numbers |= {word: rest.split()[0], **dict(re.findall(r"(\w+)=(\S+)", rest))}
            case "argument":
                found[int(numbers["task"])][1].append(rest)
    return found


def wanted(task: Task, urgency: int) -> dict[str, str]:
    given = task.workload_args.get("arg1", task.wcet_ns if task.workload == "spin" else -1)
    every = task.cpu_affinity in ((), tuple(range(VCPUS)))
    return {
        "kind": str(KINDS.index(task.workload)),
        "policy": str(POLICIES[task.policy]),
        "priority": str(0 if task.policy is Policy.DEADLINE else 98 - urgency),
        "offset_ns": str(task.offset_ns),
        "cpus": f"{0 if every else sum(1 << cpu for cpu in task.cpu_affinity):x}",
        "limit_bytes": str(task.mem_limit_bytes or 100 << 20),
        "jobs": str(task.n_jobs),
        "period_ns": str(task.period_ns or -1),
        "kill_ns": str(task.kill_after_start_ns or -1),
        "number": str(given),
    }


@given(tasksets=st.lists(expressible(), min_size=1, max_size=6))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_task_is_what_the_task_set_says(genode_check: Path, tasksets: list[TaskSet]) -> None:
    """First releases among it: offsets add up, in an order that the session chooses."""
    for taskset, found in zip(tasksets, understood(genode_check, tasksets), strict=True):
        ranks = sorted({task.priority_rank for task in taskset.tasks if task.policy is not Policy.DEADLINE})
        for idx, task in enumerate(taskset.tasks):
            numbers, arguments = found[idx]
            urgency = ranks.index(task.priority_rank) if task.policy is not Policy.DEADLINE else 0
            del numbers["task"]
            assert numbers == wanted(task, urgency)
            if task.workload == "executable":
                assert arguments == list(task.workload_args["argv"])  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [(" a",), ("a ",), ("\t",), (" ",)])
def test_blanks_around_a_word_would_be_lost(genode_check: Path, words: tuple[str, ...]) -> None:
    """So they are refused: our guest's reader leaves them out."""
    task = Task(period_ns=None, workload="executable", workload_args={"path": "/own", "argv": words})
    with pytest.raises(TaskSetError, match="argv"):
        understood(genode_check, [TaskSet((task,), overrun_policy=OverrunPolicy.KILL_AND_SKIP)])
