"""What was expected, beside what came out: bounds as they are written, and experiments through the real command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.expectations import Bound, Compared, Unit, table
from runner.units import NS_PER_MS

ROOT = Path(__file__).parents[1]


def time_bound(text: str) -> Bound:
    return Bound.parse(text, Unit.TIME, "key")


def share_bound(text: str) -> Bound:
    return Bound.parse(text, Unit.SHARE, "key")


@pytest.mark.parametrize(
    ("text", "found_ms", "holds"),
    [
        ("100ms", 101.05, True),  # 1 % and 50 us
        ("100ms", 101.06, False),
        ("100 ms", 98.9, False),
        ("<= 100ms", 1.0, True),
        ("≤100ms", 101.06, False),
        (">= 100ms", 98.95, True),
        (">= 100ms", 500.0, True),
        ("100ms ± 2ms", 101.9, True),
        ("100ms ± 0ms", 100.000001, False),
    ],
)
def test_times_have_the_tolerance_of_guests_unless_they_say_so(
    text: str, found_ms: float, holds: bool
) -> None:
    assert time_bound(text).holds_for_time(round(found_ms * NS_PER_MS)) is holds


def test_what_never_came_is_not_as_expected() -> None:
    assert not time_bound("<= 100ms").holds_for_time(None)
    assert not share_bound("0").holds_for_share(0, 0)


@pytest.mark.parametrize(
    ("text", "hits", "n", "holds"),
    [
        ("0.5", 38, 100, False),  # 0.291 … 0.478
        ("0.47", 38, 100, True),
        (">= 0.5", 38, 100, False),
        (">= 0.3", 99, 100, True),
        ("<= 0.1", 0, 100, True),
        ("1", 100, 100, True),
        ("1", 99, 100, False),
        ("0.9 ± 0.1", 8, 10, True),
        ("0 ± 0", 1, 1000, False),
    ],
)
def test_shares_are_as_sure_as_their_number_makes_them(text: str, hits: int, n: int, holds: bool) -> None:
    assert share_bound(text).holds_for_share(hits, n) is holds


@given(st.integers(1, 10_000), st.data())
def test_a_share_agrees_with_itself(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    for sign in ("", ">=", "<=", "="):
        assert share_bound(f"{sign}{hits / n!r}").holds_for_share(hits, n)


@pytest.mark.parametrize("unit", Unit)
@given(text=st.text(max_size=12) | st.from_regex(r"(>=|≤)?\s?[0-9.]+(ms)?( ± [0-9.]+)?", fullmatch=True))
def test_a_bound_is_read_or_refused_in_words(unit: Unit, text: str) -> None:
    try:
        bound = Bound.parse(text, unit, "key")
    except UsageError as exc:
        if exc.where != "key":
            raise
    else:
        assert bound.sign in ("=", "<=", ">=")


def test_what_fails_can_be_seen() -> None:
    shown = table((Compared("a", "1", "1", holds=True), Compared("b", "1", "2", holds=False)))
    assert re.search(r"^b +1 +2 +NOT AS EXPECTED$", shown, re.MULTILINE)
    assert shown.endswith("1 of 2 figures are as expected.")


def said(folder: Path, *overrides: str, code: int = 0) -> str:
    """What a simulated run prints."""
    command = [
        sys.executable,
        "-m",
        "runner",
        "machines=simulation",
        "report=false",
        f"hydra.run.dir={folder}",
    ]
    ended = subprocess.run(
        [*command, *overrides], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def test_a_run_prints_both_and_what_differs_is_a_finding(tmp_path: Path) -> None:
    """The set was measured as it should be, so the exit code is 0: what it shows is data."""
    wrong = "expected.sets.g1_reversed.missed=[25,0,0]"
    shown = said(tmp_path, "experiment=g1_reversed", wrong)
    assert re.search(r"worst response, task 0 +104.5ms +104.5 ms +ok", shown)
    assert re.search(r"jobs missed +25, 0, 0 +26, 0, 0 +NOT AS EXPECTED", shown)
    assert "3 of 4 figures are as expected." in shown
    assert "1 of 4 figures are not as expected" in shown


def test_curves_of_analysis_and_of_both_schedulers(tmp_path: Path) -> None:
    shown = said(
        tmp_path,
        "experiment=g4_constrained",
        "tasksets.sets_per_utilization=20",
        "tasksets.utilizations=[0.75]",
    )
    for curve in ("rta", "fifo", "qpa", "deadline"):
        assert re.search(rf"{curve}, U = 0.75: schedulable .* N = 20 +ok", shown)
    assert re.search(r"fifo, U = 0.95: schedulable +0.095 ± 0.05 +- +NOT AS EXPECTED", shown), (
        "was not measured"
    )


def test_breakdown_utilizations(tmp_path: Path) -> None:
    """G4 (a) with a twentieth of its sets; what is expected of sizes that no set has did not come."""
    few = ("tasksets.sets_per_utilization=50", "+expected.breakdown.mean.30='0.9'")
    shown = said(
        tmp_path, "experiment=g4_independent_costs", *few, "expected.breakdown.mean.20='0.904 ± 0.03'"
    )
    assert re.search(
        r"n = 20: mean breakdown utilization +0.904 ± 0.03 +0.9.* ± 0.0.*, N = (4[5-9]|50) +ok", shown
    )
    assert re.search(r"n = 30: .* 0.9 +- +NOT AS EXPECTED", shown)


def test_shares_of_sets_that_break_at_so_much_or_above(tmp_path: Path) -> None:
    shown = said(tmp_path, "experiment=g4_breakdown", "tasksets.sets_per_utilization=50")
    assert re.search(r"breakdown utilization >= 0.80 +1 +1.000 .* N = 50 +ok", shown)
    assert re.search(r"breakdown utilization >= 1.00 +0 +0.000 .* N = 50 +ok", shown)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (
            "experiment=g1_reversed expected.sets.g1_reversed.worst_response=[soon]",
            "expected.sets.g1_reversed.worst_response[0]",
        ),
        ("+expected.acceptance.fifo={high:'1'}", "expected.acceptance.fifo.high"),
        ("+expected.nothing=1", "expected.nothing"),
        ("expected.slack=-1", "expected.slack"),
        ("expected.overload=inf", "expected.overload"),
        ("+expected.breakdown.mean.ten='0.9'", "expected.breakdown.mean.ten"),
        ("+expected.breakdown.mean.10=much", "expected.breakdown.mean.10"),
        ("expected.acceptance={fifo:{0.5:'1'}}", "write + before it"),
    ],
)
def test_expectations_that_cannot_be_meant_are_refused_first(tmp_path: Path, override: str, key: str) -> None:
    shown = said(tmp_path, *override.split(), code=2)
    assert key in shown
    assert not (tmp_path / "manifest.json").exists()


def test_every_experiment_says_what_it_expects() -> None:
    for path in (ROOT / "conf" / "experiment").glob("*.yaml"):
        assert "\nexpected:" in path.read_text(), path.name


@pytest.mark.guest
def test_what_analysis_proves_guests_keep(tmp_path: Path) -> None:
    """G4 (e) with a tenth of its sets: none that analysis accepts with 5 % longer C misses, and each above U = 1.05 does."""
    shown = said(
        tmp_path,
        *("experiment=g4_measured", "machines=arm64", "machines.count=2"),
        *("tasksets.sets_per_utilization=3", "tasksets.utilizations=[0.8,0.9,1.1]", "tasksets.horizon=1s"),
    )
    assert re.search(r"RTA accepts with C \+ 5% that missed +0 +0 of [1-6] +ok", shown)
    assert re.search(r"measured U > 1.05 that met all +0 +0 of 3 +ok", shown)
