"""The report's page and figures: what they say of real runs, of hostile names, of next to nothing; and that no run suffers by them."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runner.monitors.sqlite import SQLiteMonitor
from runner.paths import RunPaths
from runner.report.__main__ import main
from runner.report.after_run import report_after
from runner.report.canvas import Chart
from runner.report.disagreements import BEYOND
from runner.report.page import Page, Section, Table
from runner.report.reading import labels_of, read_run
from runner.report.run_report import run_page
from tests.cli import run_cli
from tests.report_samples import HOSTILE_NAMES, rename, simulated

SETS = ("tasksets.utilizations=[0.6,0.8,0.9,1.0]", "tasksets.sets_per_utilization=6")
#: All that a page is made of; nothing among them runs, fetches or sends.
TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body header h1 h2 p dl div dd dt nav a main section figure details summary table thead tbody tr"
        " th td pre footer svg defs clippath rect g path use text tspan",
    )
)


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts).replace("\N{NO-BREAK SPACE}", " ")


def harmless(html: str) -> Reader:
    """The page, if nothing in it does anything."""
    page = Reader(html)
    assert page.open == []
    assert page.tags <= TAGS
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("href", "xlink:href", "src"):
            assert value.startswith("#")
        if name == "style":
            assert not re.search(r"url\((?!#)", value)
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    return page


@contextmanager
def writing(run: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(run / "results.sqlite")) as database, database:
        yield database


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without analyses."""
    return simulated(
        tmp_path_factory.mktemp("plain"), *SETS, "machines.count=2", "monitors.sqlite.analyses=none"
    )


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with them."""
    return simulated(tmp_path_factory.mktemp("analysed"), *SETS, "machines.count=2")


@pytest.fixture
def own(analysed: Path, tmp_path: Path) -> Path:
    """One to change."""
    return Path(shutil.copytree(analysed, tmp_path / "own"))


def report_of(*runs: Path, folder: Path) -> str:
    target = folder / "page.html"
    assert main([*map(str, runs), "--output", str(target)]) == 0
    return target.read_text()


class TestPage:
    def test_says_what_the_data_say(self, analysed: Path, tmp_path: Path) -> None:
        page = harmless(report_of(analysed, folder=tmp_path))
        with writing(analysed) as database:
            acceptance = database.execute(
                "SELECT utilization, n_tasksets, n_schedulable, ratio FROM acceptance"
            ).fetchall()
            n_jobs, n_missed = database.execute("SELECT sum(n_jobs), sum(n_missed) FROM runs").fetchone()
        assert 0 < sum(row[2] for row in acceptance) < 24
        for utilization, n, n_met, ratio in acceptance:
            assert f"fifo {utilization:g} {n} {n_met} {ratio:.3f}" in page.text
        assert f"{n_jobs:,} jobs {n_missed:,} jobs missed" in page.text
        assert page.text.count(f"N = {n_jobs} jobs") >= 4
        assert "N = 24 task sets" in page.text
        assert "contradicts" in page.text
        assert "The data hold no" not in page.text

    def test_without_analyses_it_says_so(self, plain: Path, tmp_path: Path) -> None:
        page = harmless(report_of(plain, folder=tmp_path))
        assert page.text.count("The data hold no") == 3
        assert "rt-analysis" not in str(page.attributes)

    def test_is_the_same_each_time(self, analysed: Path, tmp_path: Path) -> None:
        again = run_page([read_run(analysed, "run")]).html()
        assert report_of(analysed, folder=tmp_path) == again

    def test_several_runs_are_compared(self, analysed: Path, tmp_path: Path) -> None:
        other = simulated(tmp_path, *SETS, "tasksets.policy=deadline")
        html = report_of(analysed, other, folder=tmp_path)
        page = harmless(html)
        first, second = labels_of([analysed, other])
        assert first != second
        assert page.text.count(f"measured, {first}") == page.text.count(f"measured, {second}") == 1
        assert f"What was run: {second}" in page.text
        assert 'id="rt-measured-1"' in html

    def test_of_a_run_that_measured_nothing(self, tmp_path: Path) -> None:
        monitor = SQLiteMonitor(tmp_path / "results.sqlite")
        monitor.open()
        monitor.close()
        page = harmless(report_of(tmp_path, folder=tmp_path))
        assert "No task set of a known utilization has been measured." in page.text
        assert "<svg" not in page.text
        assert "manifest.json cannot be read" in page.text

    def test_bad_disturbed_and_missing_sets_are_counted_apart(self, own: Path, tmp_path: Path) -> None:
        with writing(own) as database:
            ids = [row[0] for row in database.execute("SELECT taskset_id FROM tasksets LIMIT 4")]
            database.execute("UPDATE tasksets SET state = 'bad' WHERE taskset_id = ?", ids[:1])
            database.execute("UPDATE runs SET validity = 'disturbed' WHERE taskset_id = ?", ids[1:2])
            database.execute("UPDATE tasksets SET state = 'unrepeatable' WHERE taskset_id = ?", ids[2:3])
            database.execute("UPDATE runs SET schedulable = NULL WHERE taskset_id = ?", ids[3:4])
        page = harmless(report_of(own, folder=tmp_path))
        assert re.search(r"all +\d+ \d+ 1 1 1 1 ", page.text)
        assert "20 of them labelled" in page.text

    def test_many_utilizations_are_taken_together(self, own: Path, tmp_path: Path) -> None:
        with writing(own) as database:
            database.execute("UPDATE tasksets SET utilization_target = NULL")
            database.execute("INSERT INTO tasksets SELECT taskset_id || nth, name, generator, '{}', seed, n_tasks, NULL,"
                " utilization - nth / 1000.0, density, utilization_max, NULL, deadline_model, 1, NULL, NULL"
                " FROM tasksets, (SELECT job_idx + 1 AS nth FROM jobs GROUP BY job_idx LIMIT 50)")  # fmt: skip
        data = read_run(own, "own")
        assert data.acceptance.step == 0.025
        assert "Utilizations are rounded to 0.025" in harmless(report_of(own, folder=tmp_path)).text

    def test_too_many_jobs_are_sampled_and_it_says_so(self, analysed: Path) -> None:
        whole = read_run(analysed, "whole").jobs
        part = read_run(analysed, "part", max_jobs=len(whole) // 4 + 1)
        assert whole.every == 1
        assert part.jobs.every == 4
        assert 0 < len(part.jobs) < len(whole) / 2
        assert part.jobs.n_jobs == len(whole)
        text = run_page([part]).html().replace("\N{NO-BREAK SPACE}", " ")
        assert f"of every 4th run ({len(whole)} jobs in all)" in text
        assert f"{len(whole):,}</dd><dt>jobs" in text

    def test_secrets_are_masked(self, own: Path, tmp_path: Path) -> None:
        for path in (own / "manifest.json", own / ".hydra" / "config.yaml"):
            path.chmod(0o600)
        (own / "manifest.json").write_text(
            '{"overrides": ["+a.password=hunter22", "db=postgres://me:hunter22@host/x"]}'
        )
        with (own / ".hydra" / "config.yaml").open("a") as file:
            file.write("password: hunter22\n")
        html = report_of(own, folder=tmp_path)
        assert "hunter22" not in html
        assert html.count("***") == 3


class TestDisagreements:
    def test_a_task_that_admission_refused_contradicts_nothing(self, tmp_path: Path) -> None:
        run = simulated(tmp_path, "tasksets.utilizations=[1.0]", "tasksets.policy=deadline")
        with writing(run) as database:
            assert database.execute("SELECT DISTINCT outcome, schedulable FROM runs").fetchall() == [
                ("rejected", 0)
            ]
        assert read_run(run, "refused").disagreements.counts == {}

    def test_each_kind_is_listed_with_its_command(self, own: Path, tmp_path: Path) -> None:
        with writing(own) as database:
            met = database.execute("SELECT taskset_id FROM runs WHERE schedulable ORDER BY 1").fetchall()
            ((missed,), *_) = database.execute("SELECT taskset_id FROM runs WHERE NOT schedulable").fetchall()
            database.execute(
                "UPDATE analyses SET verdict = 'schedulable' WHERE test = 'rta' AND taskset_id = ?", (missed,)
            )
            database.execute(
                "UPDATE analyses SET verdict = 'unschedulable', horizon_ns = 1 WHERE test = 'rta' AND taskset_id = ?",
                met[0],
            )
            database.execute(
                "UPDATE analysis_tasks SET wcrt_ns = 1 WHERE task_idx = 2 AND taskset_id = ?",
                met[1],
            )
            # Nothing is said, or of no use within what was measured.
            database.execute(
                "UPDATE analyses SET verdict = 'unschedulable', horizon_ns = 1 << 60 WHERE test = 'qpa' AND taskset_id = ?",
                met[2],
            )
            database.execute(
                "UPDATE analyses SET verdict = 'unknown' WHERE test = 'rta' AND taskset_id = ?", met[3]
            )
        found = read_run(own, "own").disagreements
        assert found.counts == {"proven, missed": 1, "must miss, met": 1, BEYOND: 1}
        assert {(one.kind, one.taskset_id) for one in found.shown} == {
            ("proven, missed", missed),
            ("must miss, met", met[0][0]),
            (BEYOND, met[1][0]),
        }
        page = harmless(report_of(own, folder=tmp_path))
        for one in found.shown:
            assert f"python -m runner.report {own} --set {one.taskset_id}" in page.text
        assert main([str(own), "--set", missed]) == 0

    def test_guests_may_be_a_little_slower_than_theory(self, own: Path) -> None:
        with writing(own) as database:
            database.execute("UPDATE analysis_tasks SET wcrt_ns = wcrt_ns - wcrt_ns / 200")
        assert read_run(own, "own").disagreements.counts[BEYOND] > 0
        with writing(own) as database:
            database.execute("UPDATE runs SET validity = 'exact'")
        assert read_run(own, "own").disagreements.counts == {}

    def test_a_long_list_is_cut_and_counted(self, own: Path, tmp_path: Path) -> None:
        with writing(own) as database:
            database.execute("UPDATE analysis_tasks SET wcrt_ns = 1")
        found = read_run(own, "own").disagreements
        assert len(found.shown) == 40 < found.counts[BEYOND]
        assert f"40 of {found.counts[BEYOND]}" in harmless(report_of(own, folder=tmp_path)).text


class TestHostileNames:
    def test_names_do_nothing(self, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rename(own)
        with writing(own) as database:
            database.execute("UPDATE analysis_tasks SET wcrt_ns = 1")
        page = harmless(report_of(own, folder=tmp_path))
        # They are there, as text, but for what no text may be.
        assert HOSTILE_NAMES[0] in page.text
        assert "\u202e" not in page.text
        for number in range(3):
            assert main([str(own), "--set", f"#{number}"]) == 0
            path = Path(capsys.readouterr().out.splitlines()[0])
            harmless(path.read_text())
        assert main([str(own), "--figures", str(tmp_path)]) == 0
        assert main([str(own), "--trace"]) == 0

    @settings(max_examples=60)
    @given(st.text() | st.sampled_from(HOSTILE_NAMES), st.text())
    def test_whatever_a_text_is(self, name: str, other: str) -> None:
        chart = Chart(name="x", draw=lambda figure: figure.suptitle(name), what=other, width_in=1.0)
        section = Section(
            name="s",
            title=name,
            caption=other,
            empty=name,
            tables=(Table(other, (name,), ((other,),)),),
            text=other,
        )
        plain = Page(title=other, subtitle=name, numbers=((name, other),), sections=(section,)).html()
        harmless(plain)
        if all(char.isprintable() for char in name):  # names are cleaned before they are drawn
            drawn = Section(name="d", title="", charts=(chart,))
            harmless(Page(title="", subtitle="", numbers=(), sections=(drawn,)).html())


class TestFigures:
    def test_have_a_columns_width_and_their_fonts(self, analysed: Path, tmp_path: Path) -> None:
        assert main([str(analysed), "--figures", str(tmp_path / "f"), "--format", "pdf,svg,png"]) == 0
        names = {path.name for path in (tmp_path / "f").iterdir()}
        stems = {
            "acceptance",
            "response-over-deadline",
            "response-distribution",
            "miss-ratio",
            "tardiness",
            "start-latency",
            "labels",
            "machines",
        }
        assert names == {f"{stem}.{form}" for stem in stems for form in ("pdf", "svg", "png")}
        pdf = (tmp_path / "f" / "acceptance.pdf").read_bytes()
        (box,) = re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+) [0-9.]+ \]", pdf)
        assert float(box) == pytest.approx(88 / 25.4 * 72, abs=0.1)
        # TrueType, embedded.
        assert b"/FontFile2" in pdf + b"".join(_streams(pdf))
        assert b"/Type3" not in pdf
        svg = (tmp_path / "f" / "acceptance.svg").read_text()
        assert "<text" not in svg
        with Image.open(tmp_path / "f" / "acceptance.png") as picture:
            assert picture.width == pytest.approx(88 / 25.4 * 300, abs=2)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--format", "pdf,gif"], "gif"),
            (["--width-mm", "1"], "choose 20 … 2000"),
            (["--width-mm", "nan"], "choose 20 … 2000"),
        ],
    )
    def test_what_makes_no_figure_is_refused(
        self,
        analysed: Path,
        tmp_path: Path,
        arguments: list[str],
        words: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main([str(analysed), "--figures", str(tmp_path / "f"), *arguments]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "f").exists()


def _streams(pdf: bytes) -> Iterator[bytes]:
    for part in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(part)
        except zlib.error:
            continue


class TestTrouble:
    @pytest.mark.parametrize(
        "what", ["nowhere", "empty", "noise", "text where a number is", "a time that is none"]
    )
    def test_what_is_no_data_set_is_said(
        self, what: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "results.sqlite"
        match what:
            case "empty":
                path.touch()
            case "noise":
                path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
            case "text where a number is" | "a time that is none":
                path = own / "results.sqlite"
                column = ("runs", "wall_s") if what.startswith("text") else ("runs", "started_utc")
                with writing(own) as database:
                    database.execute("PRAGMA writable_schema = ON")
                    database.execute("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '')")
                with writing(own) as database:
                    database.execute("PRAGMA ignore_check_constraints = ON")
                    database.execute(f"UPDATE {column[0]} SET {column[1]} = 'yesterday'")
        assert main([str(path)]) == 2
        told = capsys.readouterr()
        assert "error: " in told.err
        assert "Traceback" not in told.err
        assert not (tmp_path / "report.html").exists()

    def test_a_place_that_cannot_be_written_is_said(
        self, analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(analysed), "--output", str(tmp_path / "no" / "report.html")]) == 4
        assert "--output" in capsys.readouterr().err


class TestAfterARun:
    def test_a_run_ends_with_its_report(self, tmp_path: Path) -> None:
        done = run_cli(tmp_path, "machines=simulation", "tasksets.sets_per_utilization=1", "report=true")
        assert done.returncode == 0
        assert "No such" not in done.stderr
        page = harmless((tmp_path / "run" / "report.html").read_text())
        # All of the run is in it, its end included.
        assert "ended.exit_code 0" in page.text
        assert "N = 5 task sets" in page.text

    def test_a_report_that_fails_costs_a_line_of_the_log(self, tmp_path: Path) -> None:
        (tmp_path / "run" / "report.html").mkdir(parents=True)
        done = run_cli(tmp_path, "machines=simulation", "tasksets.sets_per_utilization=1", "report=true")
        assert done.returncode == 0
        log = (tmp_path / "run" / "distributor.log").read_text()
        (line,) = [line for line in log.splitlines() if "no report was made" in line]
        command = (
            line.partition("To make it: ")[2]
            .replace(str(tmp_path / "run" / "report.html"), "again.html")
            .split()
        )
        subprocess.run(
            [sys.executable, *command[1:]], cwd=tmp_path, check=True, capture_output=True, timeout=60
        )
        assert (tmp_path / "again.html").is_file()

    @pytest.mark.parametrize(
        "bounds", [{"timeout_s": 0.05}, {"memory_bytes": 60 << 20}], ids=["time", "memory"]
    )
    def test_a_report_beyond_its_bounds_is_given_up(
        self, analysed: Path, tmp_path: Path, bounds: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        assert not report_after(RunPaths(tmp_path), analysed / "results.sqlite", **bounds)
        assert "python -m runner.report" in caplog.text
        assert list(tmp_path.iterdir()) == []
