"""`runner.load`, the table for learning, the data dictionary: what people see of the data."""

from __future__ import annotations

import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from runner import load
from runner.data.dictionary import dictionary
from runner.data.features import FEATURES, N_RANKS
from runner.data.meanings import COLUMNS, TABLES
from runner.data.parquet import STORED
from runner.errors import UsageError
from runner.events import Outcome, Run, RunResult, Validity
from runner.model import Policy, Provenance, Task, TaskSet
from runner.monitors.sqlite import SQLiteMonitor
from tests.monitor_samples import MS, failed, good, run, taskset

ROOT = Path(__file__).resolve().parent.parent


def measured(path: Path, *told: tuple[Run, RunResult], parquet: bool = False) -> SQLiteMonitor:
    """A run's data, complete."""
    monitor = SQLiteMonitor(path, parquet=path.parent / "parquet" if parquet else None)
    monitor.open()
    for which, result in told:
        monitor.__taskset_start__(which)
        (monitor.__taskset_stop__ if result.error else monitor.__taskset_finish__)(which, result)
    monitor.close()
    return monitor


def features(path: Path) -> dict[str, dict[str, object]]:
    """By task set."""
    return {row["taskset_id"]: row for row in load(path).tables["features"].to_pylist()}


def alone(period_ms: int, *, policy: Policy = Policy.FIFO, **origin: int) -> TaskSet:
    provenance = Provenance(generator="g", params=origin, seed=7) if origin else Provenance()
    return TaskSet((Task(period_ns=period_ms * MS, wcet_ns=MS, policy=policy),), provenance=provenance)


def test_the_dictionary_is_up_to_date() -> None:
    page = (ROOT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
    assert page == dictionary(), "python -m runner.data.dictionary docs/data-dictionary.md"


def test_every_column_has_a_meaning_and_says_when_it_is_null() -> None:
    assert set(TABLES) == set(COLUMNS) == {table.name for table in STORED}
    for table in STORED:
        assert set(COLUMNS[table.name]) == set(table.names)
        for column in table.columns:
            assert not (column.required and " | " in COLUMNS[table.name][column.name]), (
                table.name,
                column.name,
            )


def test_features_of_a_set_by_hand(tmp_path: Path) -> None:
    which = taskset(target=0.5)
    measured(tmp_path / "results.sqlite", (run(which), good(slow_ns=21 * MS)))
    row = features(tmp_path)[which.taskset_id]
    assert (row["n_tasks"], row["utilization"], row["utilization_max"], row["utilization_min"]) == (
        2,
        0.5,
        0.3,
        0.2,
    )
    assert [row[f"utilization_rank_{rank}"] for rank in range(N_RANKS)] == [0.2, 0.3, *[None] * 8]
    assert (row["period_ratio"], row["harmonicity"], row["deadline_ratio_min"]) == (0.5, 1.0, 1.0)
    assert row["margin_ll"] == pytest.approx(2 * (2**0.5 - 1) - 0.5)
    assert (row["label_schedulable"], row["label_n_jobs"], row["label_n_missed"]) == (False, 3, 1)
    assert (row["label_miss_ratio"], row["label_response_over_deadline"]) == (pytest.approx(1 / 3), 21 / 20)
    assert (row["label_tardiness_max_ns"], row["valid_n_runs"], row["valid_state"]) == (MS, 1, "done")


@pytest.mark.parametrize(
    "outcome", [Outcome.INFRA_ERROR, Outcome.GUEST_CRASH, Outcome.ABORTED, Outcome.DISTURBED]
)
def test_what_the_infrastructure_failed_in_is_no_label(outcome: Outcome, tmp_path: Path) -> None:
    measured(tmp_path / "results.sqlite", (run(), failed(outcome)))
    (row,) = features(tmp_path).values()
    assert {
        name: value for name, value in row.items() if name.startswith("label_") and value is not None
    } == {}
    disturbed = outcome is Outcome.DISTURBED
    assert (row["valid_n_runs"], row["valid_n_failed"], row["valid_n_disturbed"]) == (
        0,
        not disturbed,
        disturbed,
    )


def test_disturbed_runs_give_no_label(tmp_path: Path) -> None:
    measured(tmp_path / "results.sqlite", (run(), replace(good(), validity=Validity.DISTURBED)))
    (row,) = features(tmp_path).values()
    assert (row["label_schedulable"], row["label_n_jobs"], row["valid_n_disturbed"]) == (None, None, 1)


def test_a_refused_task_is_a_label_and_its_jobs_are_none(tmp_path: Path) -> None:
    measured(tmp_path / "results.sqlite", (run(), replace(good(), outcome=Outcome.REJECTED)))
    (row,) = features(tmp_path).values()
    assert (row["label_schedulable"], row["label_rejected"], row["label_miss_ratio"]) == (False, True, None)


def test_lineages(tmp_path: Path) -> None:
    pair = TaskSet((Task(period_ns=5 * MS, wcet_ns=MS), Task(period_ns=7 * MS, wcet_ns=MS)))
    linked = [alone(5), alone(5, policy=Policy.DEADLINE), pair, alone(7)]
    drawn = [alone(11, point_idx=0, set_idx=3), alone(13, point_idx=0, set_idx=3)]
    other = alone(17, point_idx=1, set_idx=3)
    measured(
        tmp_path / "results.sqlite",
        *((run(one), good()) for one in [*linked, *drawn, other] if len(one.tasks) > 1),
    )
    told = [(run(one), replace(good(), jobs=())) for one in [*linked, *drawn, other]]
    (tmp_path / "all").mkdir()
    measured(tmp_path / "all/results.sqlite", *told)
    rows = features(tmp_path / "all")
    groups = {one.taskset_id: rows[one.taskset_id]["group_lineage"] for one in [*linked, *drawn, other]}
    assert len({groups[one.taskset_id] for one in linked}) == 1
    assert len({groups[one.taskset_id] for one in drawn}) == 1
    assert len(set(groups.values())) == 3
    assert groups[other.taskset_id] == other.taskset_id


def test_lineages_go_across_runs(tmp_path: Path) -> None:
    paths = []
    for name, sets in {"a": [alone(5), alone(6)], "b": [alone(5, policy=Policy.DEADLINE)]}.items():
        (tmp_path / name).mkdir()
        measured(tmp_path / name / "results.sqlite", *((run(one), replace(good(), jobs=())) for one in sets))
        paths.append(tmp_path / name)
    data = load(*paths)
    assert data.tables["features"]["source"].to_pylist() == [str(path / "results.sqlite") for path in
                                                             (paths[0], paths[0], paths[1])]  # fmt: skip
    assert len(set(data.tables["features"]["group_lineage"].to_pylist())) == 2
    assert data.tables["tasksets"].num_rows == 3


def test_folds_by_lineage_share_no_lineage(tmp_path: Path) -> None:
    """Folds as GroupKFold makes them: a group is in one."""
    sets = [
        alone(period, policy=policy) for period in range(3, 15) for policy in (Policy.FIFO, Policy.DEADLINE)
    ]
    measured(tmp_path / "results.sqlite", *((run(one), replace(good(), jobs=())) for one in sets))
    frame = load(tmp_path).pandas("features")
    folds = frame["group_lineage"].map(lambda group: int(group, 16) % 5)
    assert set(frame.groupby("group_lineage").size()) == {2}
    for fold in set(folds):
        test = frame[folds == fold]
        train = frame[folds != fold]
        assert not set(test["group_lineage"]) & set(train["group_lineage"])


def test_null_stays_null_and_enumerations_are_dictionaries(tmp_path: Path) -> None:
    measured(tmp_path / "results.sqlite", (run(), good()), (run(taskset(n=1)), failed()), parquet=True)
    for data in (load(tmp_path), load(tmp_path / "parquet"), load(str(tmp_path / "results.sqlite"))):
        frame = data.pandas("runs")
        assert str(frame["n_jobs"].dtype) == "int64[pyarrow]"
        assert frame["n_jobs"].isna().sum() == 1
        assert str(frame["outcome"].dtype) == "category"
        polars = data.polars("runs")
        assert (polars["n_jobs"].null_count(), str(polars["outcome"].dtype)) == (1, "Categorical")
    for name in load(tmp_path).tables:
        assert load(tmp_path).tables[name].equals(load(tmp_path / "parquet").tables[name]), name


def test_load_while_the_run_goes_on(tmp_path: Path) -> None:
    monitor = SQLiteMonitor(tmp_path / "results.sqlite")
    monitor.open()
    monitor.__taskset_start__(run())
    monitor.idle()
    data = load(tmp_path)
    assert data.tables["tasksets"].num_rows == 1
    monitor.__taskset_finish__(run(), good())
    monitor.idle()
    assert load(tmp_path).tables["jobs"].num_rows == 3
    monitor.close()


def test_what_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no data at"):
        load(tmp_path)
    with pytest.raises(UsageError, match="no path"):
        load()
    (tmp_path / "runs.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UsageError, match=r"is no Parquet file|cannot be read"):
        load(tmp_path).tables["runs"]
    measured(tmp_path / "results.sqlite", (run(), good()))
    data = load(tmp_path / "results.sqlite")
    with pytest.raises(UsageError, match="no table 'nonsense'"):
        data.tables["nonsense"]
    for library in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(UsageError, match=f"{library} is not installed"):
            getattr(data, library)("runs")


def test_the_readmes_line_of_sql_works(tmp_path: Path) -> None:
    measured(tmp_path / "results.sqlite", (run(taskset(target=0.5)), good()), parquet=True)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    by_duckdb = re.search(r'duckdb\.sql\("(SELECT .*?)"\)', readme)
    assert by_duckdb is not None
    statement = re.sub(r"outputs/[^']*?/parquet", str(tmp_path / "parquet"), by_duckdb[1])
    with duckdb.connect() as connection:
        assert connection.sql(statement).fetchall() == [(0.5, "fifo", 1, 1.0)]
    by_sqlite = re.search(r'results\.sqlite "(SELECT .*?)"', readme)
    assert by_sqlite is not None
    with closing(sqlite3.connect(tmp_path / "results.sqlite")) as database:
        assert database.execute(by_sqlite[1]).fetchall() == [(0.5, 1, 1, 1, 1.0, 0, "fifo")]


def test_the_view_has_every_feature_but_the_lineage(tmp_path: Path) -> None:
    measured(tmp_path / "results.sqlite", (run(), good()))
    with closing(sqlite3.connect(tmp_path / "results.sqlite")) as database:
        names = [one[0] for one in database.execute("SELECT * FROM features").description]
    assert [*names, "group_lineage"] == list(FEATURES.names)


def test_the_monitor_of_the_users_own_in_the_documentation(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "AbstractMonitor)" in block
    )
    assert len([line for line in code.splitlines() if line and "import" not in line]) == 10
    names: dict[str, type] = {}
    exec(code, names)
    kind = names["WorstMonitor"]
    monitor = kind(str(tmp_path / "worst.txt"))
    monitor.open()
    monitor.__taskset_finish__(run(), good())
    monitor.close()
    assert (tmp_path / "worst.txt").read_text() == f"{taskset().taskset_id} 10000000\n"
