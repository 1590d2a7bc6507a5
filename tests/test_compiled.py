"""Loops that Numba compiles: who needs it, where their machine code is kept, and that they count as Python does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.analysis.arrays import NONE, TaskArrays, response_times, schedulable_by_rank
from runner.analysis.demand import quick_demand
from runner.analysis.demand_arrays import feasible_under_edf
from runner.analysis.fixed_priority import responses
from runner.compiled import compiled
from runner.tasksets.stream import uniform_stream

MAKE_ONE = (
    "from runner.tasksets import RandomTaskSets; from runner.tasksets.bulk import make_many\n"
    "source = RandomTaskSets(n_tasks=2, utilizations=[0.5], sets_per_utilization=1, periods=['10ms'])\n"
    "print(make_many(source, 0, 0, 1).period_ns.tolist())\n"
)


def ended(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_a_run_does_not_load_numba() -> None:
    """It takes a quarter of a second to import."""
    done = ended(
        "import sys, runner, runner.run, runner.__main__, runner.analysis, runner.tasksets, runner.monitors.sqlite\n"
        "print('numba' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr


def test_who_has_no_numba_is_told_what_to_install() -> None:
    done = ended("import sys; sys.modules['numba'] = None\n" + MAKE_ONE)
    assert "HostError" in done.stderr
    assert "rtfleet[arrays]" in done.stderr


def test_machine_code_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        done = ended(MAKE_ONE, NUMBA_CACHE_DIR=str(tmp_path))
        assert (done.returncode, done.stdout) == (0, "[[10000000, 10000000]]\n"), done.stderr
        kept.append({path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")})
    assert any("_draw" in name for name in kept[0])
    assert kept[0] == kept[1], "compiled twice"


@compiled
def _powers(bases: np.ndarray, exponents: np.ndarray, found: np.ndarray) -> None:
    for idx in range(len(bases)):
        found[idx] = bases[idx] ** exponents[idx]


def test_powers_are_pythons() -> None:
    """Of the C library; NumPy's own may differ in their last bits."""
    uniform = uniform_stream(1)
    bases = np.array([uniform() for _ in range(20_000)] + [0.0, 2.0**-53])
    exponents = 1.0 / (1 + np.arange(len(bases)) % 63)
    found = np.empty_like(bases)
    _powers(bases, exponents, found)
    pairs = zip(bases.tolist(), exponents.tolist(), strict=True)
    assert found.tolist() == [base**exponent for base, exponent in pairs]


ROWS = st.lists(st.tuples(st.integers(1, 30), st.integers(2, 60), st.integers(2, 60)), min_size=1, max_size=5)


@given(ROWS, st.sampled_from([1, 1 << 20, 1 << 39]))
@settings(max_examples=60, deadline=None)
def test_long_times_are_counted_as_exactly(rows: list[tuple[int, int, int]], scale: int) -> None:
    """2^39 is as long as the arrays take; no sum may wrap around, whatever the tasks ask for."""
    rows = [(cost, period, min(due, period)) for cost, period, due in rows]
    sets = TaskArrays(*(np.array([[row[at] * scale for row in rows]], np.int64) for at in range(3)))
    single = responses(sets.row(0), range(len(rows)))
    assert schedulable_by_rank(sets).tolist() == [not any(one.late for one in single)]
    assert response_times(sets, only_in_time=True)[0].tolist() == [
        NONE if one.wcrt is None or one.late else one.wcrt for one in single
    ]
    alone = quick_demand(sets.row(0)).feasible
    assert feasible_under_edf(sets).tolist() == [NONE if alone is None else alone]


def test_overload_by_short_tasks_ends_at_once() -> None:
    """The second asks for 2^40 times what there is; the third's window would end never."""
    rows = [(1, 1, 1), (1 << 40, 1, 1), (1, 1 << 45, 1 << 45)]
    sets = TaskArrays(*(np.array([[row[at] for row in rows]], np.int64) for at in range(3)))
    assert response_times(sets, only_in_time=True).tolist() == [[1, NONE, NONE]]
    assert schedulable_by_rank(sets).tolist() == [False]


def test_columns_instead_of_rows_are_taken() -> None:
    """The numbers of one task side by side, as NumPy turns them round."""
    costs, periods = np.array([[1, 1], [3, 2]], np.int64).T, np.array([[4, 3], [8, 5]], np.int64).T
    assert response_times(TaskArrays(costs, periods, periods)).tolist() == [[1, 4], [1, 3]]
