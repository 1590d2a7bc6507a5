"""The report in a real browser: what is seen, what is not asked for."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runner.report.__main__ import main
from runner.report.canvas import COLOURS
from tests.browser import Look, look_at
from tests.report_samples import rename, simulated

WIDTH = 1240


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose names mean harm, analysed."""
    folder = simulated(
        tmp_path_factory.mktemp("report"),
        "tasksets.utilizations=[0.6,0.7,0.8,0.9,1.0]",
        "tasksets.sets_per_utilization=8",
        "machines.count=2",
    )
    rename(folder)
    return folder


def pixels(path: Path) -> NDArray[np.int16]:
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.int16)


def count_near(picture: NDArray[np.int16], colour: str) -> int:
    """Pixels of about that colour."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return int((np.abs(picture - wanted).max(axis=2) < 12).sum())


def sound(look: Look) -> None:
    assert look.complaints == ()
    assert look.requests == ()


def test_the_curves_are_seen(run: Path, tmp_path: Path) -> None:
    assert main([str(run)]) == 0
    look = look_at(run / "report.html", tmp_path)
    sound(look)
    for part in ("rt-measured-0", "rt-interval-0", "rt-analysis-0", "rt-analysis-2", "rt-cdf-0", "rt-bound"):
        assert f'id="{part}"' in look.dom
    for title in ("Acceptance ratio", "Start latency", "Label balance", "Machines over time", "What was run"):
        assert title in look.dom
    picture = pixels(look.picture)
    assert picture.shape == (2600, WIDTH, 3)
    # The measured curve is about as long as its plot is wide, and some pixels thick; boxes, medians and bars come on top.
    assert count_near(picture, COLOURS[0]) > 1500
    # Nothing sticks out of the page: its margins are empty.
    for margin in (picture[:, :8], picture[:, -8:]):
        assert np.ptp(margin.reshape(-1, 3), axis=0).max() == 0


def test_the_dark_theme_is_dark_and_has_the_same_curves(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--output", str(tmp_path / "report.html")]) == 0
    look = look_at(tmp_path / "report.html", tmp_path, dark=True)
    sound(look)
    picture = pixels(look.picture)
    assert np.median(picture) < 50
    assert count_near(picture, "#58a9e0") > 1500


def test_a_schedule_is_seen(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(run / "results.sqlite")) as database:
        ((taskset_id,),) = database.execute("SELECT taskset_id FROM runs ORDER BY n_missed DESC LIMIT 1")
    assert main([str(run), "--set", taskset_id]) == 0
    page, _ = capsys.readouterr().out.splitlines()
    look = look_at(Path(page), tmp_path)
    sound(look)
    for part in ("rt-releases", "rt-deadlines", "rt-misses", "rt-executions-0", "rt-task-0"):
        assert f'id="{part}"' in look.dom
    assert count_near(pixels(look.picture), COLOURS[0]) > 500


def test_the_watch_sees_what_leaves(tmp_path: Path) -> None:
    """Were it not for the policy of our pages, their names would reach out: the same page without it does."""
    policy = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'">"""
    body = '<img src="http://example.invalid/x.png"><script>console.log("ran")</script>'
    seen = []
    for number, head in enumerate((policy, "")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "page.html").write_text(
            f"<!doctype html><html><head>{head}</head><body>{body}</body></html>"
        )
        seen.append(look_at(folder / "page.html", folder, height=400))
    guarded, open_ = seen
    assert guarded.requests == ()
    assert any("violates" in line for line in guarded.complaints)
    assert open_.requests
    assert all("example.invalid" in line for line in open_.requests)
    assert any('"ran"' in line for line in open_.complaints)
