"""Task sets in files: known answers, and what comes back of any set in each format."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runner.errors import UsageError
from runner.formats import rt_app, simso
from runner.formats.export import export
from runner.formats.jobs import Options
from runner.formats.kinds import FORMATS, format_of_file
from runner.formats.native import written
from runner.formats.native_schema import schema, schema_text
from runner.formats.notes import FoundSet, Note, differences
from runner.model import OverrunPolicy, Policy, Provenance, Task, TaskSet, rank_by
from runner.tasksets import UUniFastTaskSets
from runner.units import NS_PER_MS, NS_PER_S, NS_PER_US, parse_bytes, parse_ns, written_bytes, written_ns
from tests.strategies import tasksets

ROOT = Path(__file__).parents[1]
OPTIONS = Options()
#: Of the literature: (C, T) in ms, and the responses that analysis and simulation agree on.
BURNS_WELLINGS = [(3, 7), (3, 12), (5, 20)]
LEHOCZKY = [(26, 70), (62, 100)]
LEHOCZKY_MS = [114, 102, 116, 104, 118, 106, 94]


def rate_monotonic(rows: list[tuple[int, int]], **changes: Any) -> TaskSet:
    """One hyperperiod of such a set."""
    hyperperiod_ms = math.lcm(*(period for _, period in rows))
    tasks = [
        Task(
            name=f"T{idx}",
            period_ns=period * NS_PER_MS,
            wcet_ns=cost * NS_PER_MS,
            n_jobs=hyperperiod_ms // period,
        )
        for idx, (cost, period) in enumerate(rows, start=1)
    ]
    return TaskSet(rank_by(tasks, "period_ns"), **changes)


def saved(path: Path, taskset: TaskSet, name: str, *, lossy: bool = False) -> list[Note]:
    return export(lambda: iter([taskset]), FORMATS[name], path, OPTIONS, lossy=lossy)


def read(path: Path, name: str, options: Options = OPTIONS) -> list[FoundSet]:
    return list(FORMATS[name].read(path, options))


def found_in(path: Path, name: str, text: str, options: Options = OPTIONS) -> FoundSet:
    path.write_text(text, encoding="utf-8")
    (one,) = read(path, name, options)
    return one


def refused(path: Path, name: str, text: str) -> UsageError:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read(path, name)
    return caught.value


@given(st.integers(0, (1 << 63) // 10), st.integers(0, 1 << 50))
def test_quantities_are_written_as_they_are_read(time_ns: int, n_bytes: int) -> None:
    assert parse_ns(written_ns(time_ns)) == time_ns
    assert parse_bytes(written_bytes(n_bytes)) == n_bytes


class TestNative:
    """JSON and JSON Lines."""

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
    @given(
        sets=st.lists(tasksets(max_tasks=4), min_size=1, max_size=3),
        origin=st.builds(
            Provenance,
            generator=st.text(max_size=5),
            params=st.dictionaries(st.text(max_size=3), st.lists(st.integers()) | st.text()),
            seed=st.none() | st.integers(0, 1 << 128),
            utilization_target=st.none() | st.floats(0, 64),
        ),
    )
    @pytest.mark.parametrize("name", ["json", "jsonl"])
    def test_every_set_comes_back(
        self, tmp_path: Path, name: str, sets: list[TaskSet], origin: Provenance
    ) -> None:
        sets = [replace(taskset, provenance=origin) for taskset in sets]
        path = tmp_path / f"sets.{name}"
        assert export(lambda: iter(sets), FORMATS[name], path, OPTIONS, lossy=False) == []
        back = [found.taskset for found in read(path, name)]
        assert back == sets
        assert [one.taskset_id for one in back] == [one.taskset_id for one in sets]
        assert {one.provenance for one in map(_hashable, back)} == {_hashable(sets[0]).provenance}

    @settings(max_examples=40)
    @given(tasksets())
    def test_the_published_schema_takes_every_set(self, taskset: TaskSet) -> None:
        document = {"format": "rtfleet-tasksets", "version": 1, "tasksets": [written(taskset)]}
        _validator().validate(json.loads(json.dumps(document)))

    def test_the_published_schema_is_made_from_the_model(self) -> None:
        assert (ROOT / "docs/taskset.schema.json").read_text(encoding="utf-8") == schema_text()
        Draft202012Validator.check_schema(schema())

    @pytest.mark.parametrize("key", sorted(schema()["$defs"]["task"]["properties"]))
    def test_a_key_of_the_schema_is_one_of_the_reader(self, tmp_path: Path, key: str) -> None:
        """It may refuse the value, but knows the key."""
        task = {"period": "10ms", "wcet": "1ms", key: {"x": 1}}
        what = str(refused(tmp_path / "sets.json", "json", _document({"tasks": [task]})))
        assert key in what
        assert "not known" not in what

    @pytest.mark.parametrize(
        "changes",
        [
            {"tasks": [{"period": 10}]},
            {"tasks": [{"period": "10"}]},
            {"tasks": []},
            {"tasks": [{"period": "10ms", "wcet": "1ms", "n_job": 3}]},
            {"tasks": [{"period": "10ms", "wcet": "1ms"}], "overrun_policy": "panic"},
            {"tasks": [{"period": "10ms", "wcet": "1ms", "workload": "sleep"}]},
            {"tasks": [{"period": "10ms", "wcet": "1ms"}], "provenance": {"seed": "one"}},
        ],
    )
    def test_what_the_schema_refuses_is_refused(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        text = _document(changes)
        assert not _validator().is_valid(json.loads(text))
        assert "sets.json: tasksets[0]" in refused(tmp_path / "sets.json", "json", text).where

    def test_lists_of_values_are_sets_of_their_own(self, tmp_path: Path) -> None:
        path = tmp_path / "sets.json"
        path.write_text(_document({"tasks": [{"period": ["10ms", "20ms"], "wcet": ["1ms", "2ms"]}]}))
        assert len(read(path, "json")) == 4
        lines = refused(path, "jsonl", json.dumps({"tasks": [{"period": ["10ms", "20ms"], "wcet": "1ms"}]}))
        assert "stands for 2 task sets" in lines.what

    def test_the_example_of_the_docs(self, tmp_path: Path) -> None:
        text = (
            (ROOT / "docs/formats.md")
            .read_text(encoding="utf-8")
            .partition("```json\n")[2]
            .partition("```")[0]
        )
        _validator().validate(json.loads(text))
        (path := tmp_path / "sets.json").write_text(text)
        assert [found.taskset.tasks[0].wcet_ns for found in read(path, "json")] == [
            2 * NS_PER_MS,
            4 * NS_PER_MS,
        ]

    def test_a_mistake_is_told_with_its_line(self, tmp_path: Path) -> None:
        good = json.dumps(written(rate_monotonic(BURNS_WELLINGS)))
        error = refused(tmp_path / "sets.jsonl", "jsonl", f"{good}\n{good.replace('3ms', '3')}\n")
        assert "line 2" in error.where
        assert "without a unit" in error.what

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ('{"format": "rtfleet-tasksets", "format": "x"}', "stands twice"),
            ("[" * 100_000, "nests too deeply"),
            ('{"format": NaN}', "no number of JSON"),
            ('{"format": ' + "9" * 5000 + "}", "too long"),
            ('{"format": "rtfleet-tasksets", "version": 2}', "this program knows 1"),
            ('{"format": "rtfleet-tasksets", "version": 1, "sets": []}', "sets is not known"),
            ("{} x", "no JSON"),
            ("", "no JSON"),
        ],
    )
    def test_what_is_no_such_file(self, tmp_path: Path, text: str, what: str) -> None:
        assert what in str(refused(tmp_path / "sets.json", "json", text))


def _hashable(taskset: TaskSet) -> TaskSet:
    told = json.dumps(dict(taskset.provenance.params), sort_keys=True)
    return replace(taskset, provenance=replace(taskset.provenance, params=told))  # type: ignore[arg-type]


def _validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def _document(taskset: dict[str, Any]) -> str:
    return json.dumps({"format": "rtfleet-tasksets", "version": 1, "tasksets": [taskset]})


RT_APP = """{"tasks":{"t0":{"policy":"SCHED_FIFO","priority":90,"cpus":[0],"delay":0,"loop":10,
   "run":3000,"timer":{"ref":"unique","period":7000,"mode":"absolute"}},
 "t1":{"policy":"SCHED_DEADLINE","dl-runtime":3150,"dl-deadline":12000,"dl-period":12000,"loop":10,
   "run":3000,"timer":{"ref":"unique","period":12000,"mode":"absolute"}}},
 "global":{"duration":5,"calibration":"CPU0","lock_pages":true,"ftrace":"none","logdir":"./"}}
"""


class TestRtApp:
    """rt-app's JSON."""

    def test_the_form_byte_for_byte(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "two.json", "rt-app", RT_APP)
        fixed, served = found.taskset.tasks
        assert found.notes == ()
        assert (fixed.period_ns, fixed.wcet_ns, fixed.n_jobs) == (7 * NS_PER_MS, 3 * NS_PER_MS, 10)
        assert (fixed.policy, fixed.cpu_affinity) == (Policy.FIFO, (0,))
        assert (served.dl_runtime_ns, served.policy) == (3150 * NS_PER_US, Policy.DEADLINE)
        assert found.taskset.stop_ns == 5 * NS_PER_S
        assert rt_app.dump(found.taskset) == RT_APP
        assert saved(tmp_path / "again.json", replace(found.taskset, name="again"), "rt-app") == []

    def test_higher_is_more_urgent(self, tmp_path: Path) -> None:
        text = RT_APP.replace('"SCHED_DEADLINE"', '"SCHED_FIFO","priority":99').replace(
            '"dl-runtime":3150,', ""
        )
        text = text.replace('"dl-deadline":12000,"dl-period":12000,', "")
        ranks = [task.priority_rank for task in found_in(tmp_path / "two.json", "rt-app", text).taskset.tasks]
        assert ranks[1] < ranks[0]

    def test_instances_are_tasks(self, tmp_path: Path) -> None:
        found = found_in(
            tmp_path / "a.json", "rt-app", RT_APP.replace('"loop":10', '"instance":3,"loop":10', 1)
        )
        assert [task.name for task in found.taskset.tasks] == ["t0-0", "t0-1", "t0-2", "t1"]

    def test_too_many_are_refused(self, tmp_path: Path) -> None:
        task = json.loads(RT_APP)["tasks"]["t0"]
        text = json.dumps({"tasks": {f"t{k}": {**task, "instance": 64} for k in range(1000)}})
        assert "beyond the 64 tasks" in refused(tmp_path / "a.json", "rt-app", text).what

    def test_endless_loops_end_with_the_duration(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "a.json", "rt-app", RT_APP.replace('"loop":10', '"loop":-1', 1))
        assert found.taskset.tasks[0].n_jobs == math.ceil(5000 / 7)

    @pytest.mark.parametrize(
        ("old", "new", "where"),
        [
            ('"run"', '"runtime"', "tasks.t0.runtime"),
            (',"mode":"absolute"', "", "tasks.t0.timer.mode"),
            ('"absolute"', '"relative"', "tasks.t0.timer.mode"),
            ('"loop":10', '"loop":10,"phases":{}', "tasks.t0.phases"),
            ('"loop":10', '"loop":10,"lock":"m"', "tasks.t0.lock"),
            ('"loop":10', '"loop":10,"mem":20', "tasks.t0.mem"),
            ('"loop":10', '"loop":10,"run1":20', "tasks.t0.run1"),
            ('"loop":10', '"loop":10,"colour":20', "tasks.t0.colour"),
            ('"unique"', '"shared"', "tasks.t1.timer.ref"),
            ('"priority":90', '"priority":0', "tasks.t0.priority"),
            ("SCHED_FIFO", "SCHED_IDLE", "tasks.t0.policy"),
            ("3000", "3000.5", "tasks.t0.run"),
            ('"dl-period":12000', '"dl-period":13000', "tasks.t1.dl-period"),
            ('"global"', '"resources":{"m":{"type":"mutex"}},"global"', "resources"),
        ],
    )
    def test_what_is_not_importable(self, tmp_path: Path, old: str, new: str, where: str) -> None:
        text = RT_APP.replace(old, new) if new == '"shared"' else RT_APP.replace(old, new, 1)
        error = refused(tmp_path / "two.json", "rt-app", text)
        assert error.where == f"{tmp_path / 'two.json'}: {where}"
        assert error.next_step or "whole number" in error.what

    def test_what_rounding_makes_impossible_is_told(self, tmp_path: Path) -> None:
        """The budget, rounded up to us, is more than the deadline."""
        task = Task(period_ns=NS_PER_MS, wcet_ns=100_500, deadline_ns=100_500, policy=Policy.DEADLINE)
        path = tmp_path / "a.json"
        with pytest.raises(UsageError, match="cannot hold this") as caught:
            saved(path, TaskSet((task,)), "rt-app", lossy=True)
        assert caught.value.where == str(path)
        assert list(tmp_path.iterdir()) == []

    def test_the_timer_comes_last(self, tmp_path: Path) -> None:
        task = {"timer": {"ref": "unique", "period": 7000, "mode": "absolute"}, "run": 3000, "loop": 1}
        error = refused(tmp_path / "a.json", "rt-app", json.dumps({"tasks": {"t": task}}))
        assert "before run" in error.what


SIMSO = """<simulation duration="420000000" cycles_per_ms="1000000" etm="wcet"><sched class="simso.schedulers.RM"/>\
<caches memory_access_time="100"/>
<processors><processor name="CPU 1" id="1" cl_overhead="0" cs_overhead="0" speed="1.0"/></processors>
<tasks><task name="T1" id="1" task_type="Periodic" abort_on_miss="no" period="7" activationDate="0" list_activation_dates="" deadline="7"
 base_cpi="1.0" instructions="0" mix="0.5" WCET="3" ACET="0" preemption_cost="0" et_stddev="0"/></tasks></simulation>
"""


def simulated_by_simso(path: Path) -> list[list[int | None]]:
    if sys.version_info >= (3, 12):
        pytest.skip("SimSo 0.8.5 needs the module imp, which Python 3.12 does not have")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.simso_responses", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def ended(responses_ns: list[int | None]) -> list[int | None]:
    """Without the last job, which SimSo still releases at the very instant at which it stops."""
    assert responses_ns[-1] is None
    return responses_ns[:-1]


class TestSimSo:
    """SimSo's XML, held against SimSo itself."""

    def test_the_form_byte_for_byte(self, tmp_path: Path) -> None:
        one = rate_monotonic([(3, 7)])
        one = replace(one, tasks=(replace(one.tasks[0], n_jobs=60),))
        assert simso.dump(one) == SIMSO
        found = found_in(tmp_path / "taskset.xml", "simso", SIMSO)
        assert found == FoundSet(one)

    def test_the_tutorial_set(self, tmp_path: Path) -> None:
        """R 3, 6, 20 (Burns and Wellings; the same set is SimSo's tutorial)."""
        path = tmp_path / "taskset.xml"
        assert saved(path, rate_monotonic(BURNS_WELLINGS), "simso") == []
        worst = [max(of or 0 for of in responses) for responses in simulated_by_simso(path)]
        assert worst == [3 * NS_PER_MS, 6 * NS_PER_MS, 20 * NS_PER_MS]

    def test_lehoczky_1990(self, tmp_path: Path) -> None:
        path = tmp_path / "taskset.xml"
        saved(path, rate_monotonic(LEHOCZKY), "simso")
        assert ended(simulated_by_simso(path)[1]) == [of * NS_PER_MS for of in LEHOCZKY_MS]

    def test_lehoczky_aborted_at_deadlines(self, tmp_path: Path) -> None:
        """τ2's jobs end at 100, 88, 100, 100, 88, 100, 88 ms: other than with `continue`, which is why the policy is carried."""
        path = tmp_path / "taskset.xml"
        given = rate_monotonic(LEHOCZKY, overrun_policy=OverrunPolicy.ABORT_AT_DEADLINE)
        assert saved(path, given, "simso") == []
        ((back),) = [found.taskset for found in read(path, "simso")]
        assert back.overrun_policy is OverrunPolicy.ABORT_AT_DEADLINE
        assert ended(simulated_by_simso(path)[1]) == [
            of * NS_PER_MS for of in (100, 88, 100, 100, 88, 100, 88)
        ]

    def test_other_priorities_than_rate_monotonic(self, tmp_path: Path) -> None:
        """Reversed: the longest period is the most urgent, so that τ1 misses."""
        taskset = rate_monotonic(BURNS_WELLINGS)
        tasks = tuple(replace(task, priority_rank=2 - task.priority_rank) for task in taskset.tasks)
        path = tmp_path / "taskset.xml"
        assert saved(path, replace(taskset, tasks=tasks), "simso") == []
        assert 'priority="-2"' in path.read_text()
        worst = [max(of or 0 for of in responses) for responses in simulated_by_simso(path)]
        assert worst == [11 * NS_PER_MS, 8 * NS_PER_MS, 5 * NS_PER_MS]

    @pytest.mark.parametrize(
        ("old", "new", "what"),
        [
            ('task_type="Periodic"', 'task_type="Sporadic"', "task_type is 'Sporadic'"),
            ("schedulers.RM", "schedulers.P_RM", "orders jobs in no way of ours"),
            ('WCET="3"', 'WCET="three"', "not a decimal number"),
            ('WCET="3"', "", "has no WCET"),
            ('WCET="3"', 'WCET="0"', "must be more than 0"),
            ('duration="420000000"', 'duration="-1"', "not a number of cycles"),
            ("<simulation", '<!DOCTYPE simulation [<!ENTITY a "b">]><simulation', "document type"),
            ("</tasks>", "</task>", "no XML"),
            ("</tasks>", "x</tasks>", "text between"),
        ],
    )
    def test_what_is_not_importable(self, tmp_path: Path, old: str, new: str, what: str) -> None:
        error = refused(tmp_path / "a.xml", "simso", SIMSO.replace(old, new, 1))
        assert what in error.what
        assert re.search(r"a\.xml: line \d", error.where)

    @pytest.mark.parametrize(
        ("old", "new", "what"),
        [
            ('ACET="0"', 'ACET="2.5"', "ACET '2.5' is not carried"),
            ('etm="wcet"', 'etm="acet"', "execution times by 'acet'"),
            ('cs_overhead="0"', 'cs_overhead="10"', "cs_overhead '10'"),
            ('speed="1.0"', 'speed="0.5"', "speed '0.5'"),
            ("</processors>", '<processor name="b" id="2"/></processors>', "2 processors"),
        ],
    )
    def test_what_is_lost_is_listed(self, tmp_path: Path, old: str, new: str, what: str) -> None:
        found = found_in(tmp_path / "a.xml", "simso", SIMSO.replace(old, new, 1))
        assert [note.lost for note in found.notes] == [True]
        assert what in found.notes[0].what

    def test_floats_are_rounded_to_ns(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "a.xml", "simso", SIMSO.replace('WCET="3"', 'WCET="0.3333333333"'))
        assert found.taskset.tasks[0].wcet_ns == 333_333
        assert [note.lost for note in found.notes] == [False]
        assert "0.3333333333 ms → 333333 ns" in found.notes[0].what


class TestSchedCat:
    """SchedCAT's XML."""

    TEXT = (
        '<taskset><task period="92000" wcet="77458" deadline="90000" partition="0">'
        '<affinity><cpu id="0"/></affinity></task></taskset>\n'
    )

    def test_the_form_byte_for_byte(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "a.xml", "schedcat", self.TEXT)
        (task,) = found.taskset.tasks
        assert (task.period_ns, task.wcet_ns) == (92_000 * NS_PER_US, 77_458 * NS_PER_US)
        assert (task.deadline_ns, task.cpu_affinity) == (90_000 * NS_PER_US, (0,))
        assert [note.lost for note in found.notes] == [False]  # how many jobs is assumed
        path = tmp_path / "b.xml"
        saved(path, found.taskset, "schedcat")
        assert path.read_text() == self.TEXT

    def test_the_unit_is_the_users(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "a.xml", "schedcat", self.TEXT, Options(unit_ns=1))
        assert found.taskset.tasks[0].period_ns == 92_000

    def test_a_test_point_has_several_sets(self, tmp_path: Path) -> None:
        sets = [rate_monotonic(BURNS_WELLINGS), rate_monotonic([(26, 70), (32, 100)])]
        path = tmp_path / "a.xml"
        notes = export(lambda: iter(sets), FORMATS["schedcat"], path, OPTIONS, lossy=False)
        assert not any(note.lost for note in notes)
        back = [found.taskset for found in read(path, "schedcat")]
        assert [one.utilization for one in back] == [one.utilization for one in sets]

    def test_document_order_is_priority(self, tmp_path: Path) -> None:
        taskset = rate_monotonic([(5, 20), (3, 7)])
        path = tmp_path / "a.xml"
        notes = saved(path, taskset, "schedcat")
        assert any("order of their priority" in note.what for note in notes)
        (found,) = read(path, "schedcat")
        assert [task.period_ns for task in found.taskset.tasks] == [7 * NS_PER_MS, 20 * NS_PER_MS]

    def test_what_is_lost_is_listed_and_refused(self, tmp_path: Path) -> None:
        taskset = rate_monotonic(BURNS_WELLINGS)
        taskset = replace(taskset, tasks=(replace(taskset.tasks[0], offset_ns=7), *taskset.tasks[1:]))
        path = tmp_path / "a.xml"
        with pytest.raises(UsageError) as caught:
            saved(path, taskset, "schedcat")
        assert "('T1').offset_ns: 7ns → 0ns" in caught.value.what
        assert "--lossy" in caught.value.next_step
        assert list(tmp_path.iterdir()) == []
        assert any("offset_ns" in note.where for note in saved(path, taskset, "schedcat", lossy=True))
        assert path.exists()

    def test_resources_are_refused(self, tmp_path: Path) -> None:
        text = self.TEXT.replace("<affinity>", '<resources><requirement res_id="1"/></resources><affinity>')
        assert "<resources> is not importable" in refused(tmp_path / "a.xml", "schedcat", text).what

    def test_an_endless_hyperperiod_needs_a_duration(self, tmp_path: Path) -> None:
        text = '<taskset><task period="999983" wcet="1"/><task period="1000003" wcet="1"/></taskset>'
        assert "--duration" in refused(tmp_path / "a.xml", "schedcat", text).next_step
        found = found_in(tmp_path / "a.xml", "schedcat", text, Options(duration_ns=10 * NS_PER_S))
        assert [task.n_jobs for task in found.taskset.tasks] == [11, 10]


def test_rtspin_lines(tmp_path: Path) -> None:
    task = Task(
        period_ns=40 * NS_PER_MS,
        wcet_ns=9_500_000,
        deadline_ns=30 * NS_PER_MS,
        offset_ns=5 * NS_PER_MS,
        priority_rank=2,
        n_jobs=50,
        cpu_affinity=(1,),
    )
    path = tmp_path / "taskset.sh"
    notes = saved(path, TaskSet((task,)), "rtspin")
    assert path.read_text() == "rtspin -w -p 1 -d 30 -o 5 -q 3 9.5 40 2.005\n"
    assert [note.lost for note in notes] == [False]
    assert "line 1" in refused(path, "rtspin", "rm -rf / 1 2 3\n").where
    assert "1000000 characters" in refused(path, "rtspin", "x" * 1_000_000).what


ORIGINAL = TaskSet(
    tuple(
        Task(
            name=f"{workload}{idx}",
            period_ns=period_ms * NS_PER_MS,
            n_jobs=20,
            workload=workload,
            workload_args={} if workload == "hey" else {"arg1": argument},
            priority_rank=rank,
            offset_ns=idx * 300 * NS_PER_MS,
            kill_after_start_ns=(period_ms - 500) * NS_PER_MS,
            mem_limit_bytes=100 << 20,
            cpu_affinity=(1,),
        )
        for idx, (workload, period_ms, argument, rank) in enumerate(
            [("hey", 5000, 0, 1), ("pi", 8000, 1 << 15, 127), ("cond_mod", 6000, 3**30, 3)]
        )
    ),
    name="set0",
    overrun_policy=OverrunPolicy.KILL_AND_SKIP,
)
HASHES = (
    "1" "001" "00000" "05000" "04500" "020" "00000" "100" "235" "02" "01" "000000000000000"
    "2" "127" "00000" "08000" "07500" "020" "00300" "100" "235" "02" "01" "000000000032768"
    "4" "003" "00000" "06000" "05500" "020" "00300" "100" "235" "02" "01" "205891132094649"
)  # fmt: skip


class TestOriginal:
    """The original's SQLite and task hash."""

    @pytest.mark.parametrize("name", ["original", "task-hash"])
    def test_a_set_comes_back(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "sets"
        assert saved(path, ORIGINAL, name) == []
        (found,) = read(path, name)
        assert found == FoundSet(ORIGINAL)

    def test_the_hash_digit_for_digit(self, tmp_path: Path) -> None:
        """Offsets were slept one after the other: 300 ms more each time."""
        path = tmp_path / "sets"
        saved(path, ORIGINAL, "task-hash")
        assert path.read_text() == f"{HASHES}\n"
        assert len(HASHES) == 3 * 52
        assert len(read_hashes(tmp_path, f"['{HASHES}', '{HASHES[:52]}']")) == 2

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            (HASHES[:-1], "a task has 52"),
            ("9" + HASHES[1:], "the program is 9"),
            ("exec('x')", "no task hash"),
            ("１" * 52, "no ASCII"),
        ],
    )
    def test_what_is_no_hash(self, tmp_path: Path, text: str, what: str) -> None:
        assert what in refused(tmp_path / "a.hash", "task-hash", text).what

    def test_what_ran_otherwise_than_it_was_meant_is_told(self, tmp_path: Path) -> None:
        """Above 127 meant EDF and ran as 0; `deadline` was never used; other capabilities than 235 are lost."""
        digits = "1" + "128" + "00500" + HASHES[9:30].replace("x", "") + "236" + HASHES[33:52]
        assert len(digits) == 52
        (found,) = read_hashes(tmp_path, digits)
        assert found.taskset.tasks[0].priority_rank == 0
        assert [note.lost for note in found.notes] == [False, False, True]

    def test_too_much_for_the_columns(self, tmp_path: Path) -> None:
        many = replace(ORIGINAL, tasks=ORIGINAL.tasks * 2)
        with pytest.raises(UsageError, match="columns for 4"):
            saved(tmp_path / "a.db", many, "original")
        longer = replace(ORIGINAL, tasks=(replace(ORIGINAL.tasks[0], n_jobs=1000),))
        with pytest.raises(UsageError, match="numberofjobs is 1000"):
            saved(tmp_path / "a.hash", longer, "task-hash")
        assert list(tmp_path.iterdir()) == []

    def test_a_program_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="'spin', which the original does not have"):
            saved(tmp_path / "a.db", rate_monotonic(BURNS_WELLINGS), "original")


def read_hashes(tmp_path: Path, text: str) -> list[FoundSet]:
    path = tmp_path / "text.hash"
    path.write_text(text)
    return read(path, "task-hash")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(taskset=tasksets(max_tasks=5))
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("json", "jsonl")])
def test_nothing_is_lost_in_silence(tmp_path: Path, name: str, taskset: TaskSet) -> None:
    """Written, or refused; and what was written means the same as before, but for what is listed."""
    path = tmp_path / "set"
    path.unlink(missing_ok=True)
    try:
        notes = saved(path, taskset, name, lossy=True)
    except UsageError:
        assert not path.exists()
        return
    (found,) = read(path, name)
    again = list(differences(FORMATS[name].arranged(taskset), found.taskset, "tasksets[0]"))
    assert [note for note in notes if note in again] == again
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


#: Values where others are expected: of any type, some of them plausible.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["10ms", "1", "SCHED_FIFO", "absolute"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["cpu", "arg1", "ref"]), inner)
    ),
    max_leaves=4,
)


def changed(value: Any, place: int, put: object) -> Any:
    """The same, with another value at a place, counted in the order of the text."""
    places: list[tuple[Any, Any]] = []

    def visit(holder: Any) -> None:
        for key in range(len(holder)) if isinstance(holder, list) else list(holder):
            places.append((holder, key))
            if isinstance(holder[key], dict | list):
                visit(holder[key])

    visit(value)
    holder, key = places[place % len(places)]
    holder[key] = put
    return value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(place=st.integers(0, 60), put=VALUES)
@pytest.mark.parametrize("name", ["json", "rt-app"])
def test_any_value_is_taken_or_refused(tmp_path: Path, name: str, place: int, put: object) -> None:
    document = {"format": "rtfleet-tasksets", "version": 1, "tasksets": [written(ORIGINAL)]}
    path = tmp_path / "a"
    path.write_text(json.dumps(changed(document if name == "json" else json.loads(RT_APP), place, put)))
    _taken_or_refused(path, name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    data=st.binary(max_size=60) | st.text("<>/=\"'&;{}[]:,0123456789etaskp -", max_size=60).map(str.encode)
)
@pytest.mark.parametrize("name", FORMATS)
def test_any_bytes_are_taken_or_refused(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    _taken_or_refused(path, name)


def _taken_or_refused(path: Path, name: str) -> None:
    """And where it was refused, with the file's name."""
    try:
        for found in FORMATS[name].read(path, OPTIONS):
            assert found.taskset.tasks
    except UsageError as exc:
        told = exc.where
    else:
        told = str(path)
    assert str(path) in told


@pytest.mark.parametrize("name", ["rt-app", "simso", "schedcat", "rtspin"])
def test_generated_sets_are_carried_whole(tmp_path: Path, name: str) -> None:
    """Whole us suit every one of them; one of 20 sets each."""
    source = UUniFastTaskSets(
        n_tasks=4, utilizations=[0.8], sets_per_utilization=20, periods=["20ms", "30ms"], hyperperiods=1
    )
    for taskset in _whole_us(source.variants()):
        notes = saved(tmp_path / "set", taskset, name, lossy=name in ("schedcat",))
        lost = [note for note in notes if note.lost]
        assert all("priority_rank" in note.where for note in lost), lost  # SchedCAT has no equal ranks


def _whole_us(sets: Iterator[TaskSet]) -> Iterator[TaskSet]:
    for taskset in sets:
        tasks = [replace(one, wcet_ns=(one.wcet_ns or 0) // NS_PER_US * NS_PER_US) for one in taskset.tasks]
        yield replace(taskset, tasks=tuple(tasks))


@pytest.mark.parametrize("name", ["json", "jsonl", "rt-app", "simso", "schedcat", "original"])
def test_formats_are_recognised(tmp_path: Path, name: str) -> None:
    suffix = {"json": ".json", "rt-app": ".json", "jsonl": ".jsonl", "original": ".db"}.get(name, ".xml")
    path = tmp_path / f"set{suffix}"
    taskset = ORIGINAL if name == "original" else rate_monotonic(BURNS_WELLINGS)
    saved(path, taskset, name)
    assert format_of_file(path, "--from") == name
