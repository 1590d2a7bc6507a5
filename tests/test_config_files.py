"""Every file under `conf/` composes, becomes a plan, and is accepted by the run: nothing that ships is broken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.assembly import check
from runner.config.plan import CONF_FOLDER, SECTIONS, to_plan
from runner.config.schemas import register_schemas
from runner.errors import HostError, UsageError
from runner.model import TaskSet
from runner.monitors.sqlite import SQLiteMonitor

GROUPS = ("tasksets", "monitors", "machines", "experiment")
#: Files that ask the user for something, and what they are given here.
ASKED = {
    "tasksets/custom": ["tasksets._target_=runner.tasksets.examples.Spin0TaskSet"],
    "tasksets/explicit": ["tasksets.tasksets=[{tasks:[{period:10ms,wcet:1ms}]}]"],
    "tasksets/file": [f"tasksets.path={Path(__file__).parent / 'golden' / 'tutorial.simso'}"],
    "monitors/mongodb": ["monitors.mongodb.url=mongodb://host/"],
    "monitors/postgresql": ["monitors.postgresql.url=postgresql://user@host/results"],
    "machines/custom": ["machines.session._target_=runner.sessions.simulation.SimulationSession"],
    "machines/genode_board": ["machines.board.addresses=[board1]"],
    # Any ELF file looks like an image here.
    "machines/genode_pbxa9": [f"machines.genode.image={Path(sys.executable).resolve()}"],
}
FILES = sorted(
    str(path.relative_to(CONF_FOLDER).with_suffix(""))
    for group in GROUPS
    for path in (CONF_FOLDER / group).glob("*.yaml")
)


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    """Hydra keeps its state in singletons: give each test its own."""
    GlobalHydra.instance().clear()
    store = dict(ConfigStore.instance().repo)
    register_schemas()
    with initialize_config_dir(str(CONF_FOLDER), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()
    ConfigStore.instance().repo.clear()
    ConfigStore.instance().repo.update(store)


def composed(tmp_path: Path, *overrides: str) -> DictConfig:
    """As on the command line, but for the run folder, which Hydra only knows in a run."""
    return compose("config", overrides=[f"run_folder={tmp_path}", *overrides])


def override_for(name: str) -> str:
    group, option = name.split("/")
    return f"monitors=[{option}]" if group == "monitors" else f"{group}={option}"


def test_every_file_belongs_to_a_group_that_is_tested() -> None:
    folders = {path.relative_to(CONF_FOLDER).parts[0] for path in CONF_FOLDER.rglob("*.yaml")}
    assert folders - {"config.yaml", "hydra"} == set(GROUPS)
    assert set(ASKED) <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_accepted(tmp_path: Path, name: str) -> None:
    config = composed(tmp_path, override_for(name), *ASKED.get(name, []))
    plan = to_plan(config)
    source, monitors, kind = check(plan)
    first = next(iter(source.variants()))
    assert isinstance(first, TaskSet)
    assert len(monitors) == len(config.monitors) > 0
    hosts = (plan.qemu, plan.genode, plan.boards)
    assert (kind.open_host is None) == all(host is None for host in hosts)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_what_is_asked_for_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises((UsageError, HostError)) as caught:
        check(to_plan(composed(tmp_path, override_for(name))))
    key = ASKED[name][0].partition("=")[0]
    assert key in str(caught.value)


@pytest.mark.parametrize("value", [None, 7, "text", []])
def test_task_sets_that_are_no_section_are_named(tmp_path: Path, value: object) -> None:
    """As a file of the user's can leave it."""
    config = composed(tmp_path)
    OmegaConf.update(
        config, "tasksets", value, merge=False
    )  # of all other sections OmegaConf knows that they are one
    with pytest.raises(UsageError) as caught:
        to_plan(config)
    assert caught.value.where == "tasksets._target_"


@pytest.mark.parametrize(
    "elsewhere", ["${run_folder}", "${repeat}", "${machines.session}", "${monitors.sqlite}", "${nosuch}"]
)
@pytest.mark.parametrize("section", [*SECTIONS, "machines.session", "tasksets"])
def test_a_section_that_refers_to_something_else_is_named(
    tmp_path: Path, section: str, elsewhere: str
) -> None:
    config = composed(tmp_path)
    if section in elsewhere:
        pytest.skip("refers to itself")
    OmegaConf.update(config, section, elsewhere, merge=False)
    with pytest.raises((UsageError, OmegaConfBaseException)) as caught:
        check(to_plan(config))
    assert section in str(caught.value)


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.startswith(("experiment/g1", "experiment/g2"))]
)
def test_an_experiment_runs_what_it_is_named_for(tmp_path: Path, name: str) -> None:
    """On guests and simulated alike; another machine or monitor can still be chosen beside it."""
    config = composed(tmp_path, override_for(name), "machines=simulation", "monitors=[stdout]")
    source, monitors, kind = check(to_plan(config))
    names = [taskset.name for taskset in source.variants()]
    assert source.n_variants == len(names) > 0
    assert any(name.rpartition("/")[2] == one for one in names)
    assert kind.open_host is None
    assert [type(monitor).__name__ for monitor in monitors] == ["StdoutMonitor"]


def test_the_default_experiment_measures_the_same_sets_under_both_schedulers(tmp_path: Path) -> None:
    config = composed(tmp_path, "experiment=default")
    source, _, _ = check(to_plan(config))
    assert source.n_variants == 2200
    sets = list(islice(source.variants(), 22))
    for fifo, deadline in zip(sets[::2], sets[1::2], strict=True):
        assert {task.policy.value for task in fifo.tasks} == {"fifo"}
        assert {task.policy.value for task in deadline.tasks} == {"deadline"}
        numbers = [
            [(task.wcet_ns, task.period_ns, task.n_jobs) for task in one.tasks] for one in (fifo, deadline)
        ]
        assert numbers[0] == numbers[1]
        assert fifo.hyperperiod_ns is not None
        assert 3 * fifo.hyperperiod_ns <= 1_800_000_000
    points = {(one.tasks[0].policy.value, one.provenance.utilization_target) for one in sets}
    expected = to_plan(config).expected.acceptance
    assert points == {(curve, u) for curve in ("fifo", "deadline") for u in expected[curve]}
    assert expected["rta"].keys() == expected["fifo"].keys()


def test_release_jitter_is_for_the_simulation(tmp_path: Path) -> None:
    jittery = ("tasksets=random", "tasksets.jitter=0.1")
    check(to_plan(composed(tmp_path, *jittery, "machines=simulation")))
    with pytest.raises(UsageError, match="release jitter"):
        check(to_plan(composed(tmp_path, *jittery)))


def test_the_default_is_what_it_promises(tmp_path: Path) -> None:
    """20 random sets with utilizations from 0.5 to 1.0, on one guest with instruction-counted time."""
    plan = to_plan(composed(tmp_path))
    source, _, kind = check(plan)
    targets = [taskset.provenance.utilization_target or 0.0 for taskset in source.variants()]
    assert len(targets) == 20
    assert (min(targets), max(targets)) == (0.5, 1.0)
    assert plan.qemu is not None
    assert (plan.count, plan.limit, plan.qemu.clock.value, plan.qemu.arch) == (1, 7, "icount", "arm64")
    assert kind.open_host is not None


def test_all_monitors_go_together(tmp_path: Path) -> None:
    options = [name.partition("/")[2] for name in FILES if name.startswith("monitors/")]
    asked = [one for name in FILES if name.startswith("monitors/") for one in ASKED.get(name, [])]
    _, monitors, _ = check(to_plan(composed(tmp_path, f"monitors=[{','.join(options)}]", *asked)))
    assert len(monitors) == len(options)


@pytest.mark.parametrize("path", sorted(CONF_FOLDER.rglob("*.yaml")), ids=str)
def test_every_file_explains_itself(path: Path) -> None:
    """Its first lines are a comment, before any key; and it is YAML of which nothing stands twice."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "say in a comment what the file is for"
    assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("name", [name for name in FILES if name.split("/")[0] in ("monitors", "machines")])
def test_every_option_has_a_schema(name: str) -> None:
    """A key that does not exist is refused by name, rather than ignored."""
    defaults = yaml.safe_load((CONF_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"]
    assert any(str(default).startswith("base_") for default in defaults)


def test_the_composed_config_can_be_read_back(tmp_path: Path) -> None:
    """What Hydra saves under `.hydra/` makes the same run again."""
    config = composed(tmp_path, "machines=simulation")
    again = OmegaConf.create(OmegaConf.to_yaml(config))
    assert isinstance(again, DictConfig)
    assert [one.taskset_id for one in check(to_plan(again))[0].variants()] == [
        one.taskset_id for one in check(to_plan(config))[0].variants()
    ]


def test_the_data_set_comes_as_parquet_too_unless_told_otherwise(tmp_path: Path) -> None:
    def made(*overrides: str) -> SQLiteMonitor:
        monitor = to_plan(composed(tmp_path, *overrides)).monitors["sqlite"]
        assert isinstance(monitor, SQLiteMonitor)
        return monitor

    assert (made().path, made().parquet) == (tmp_path / "results.sqlite", tmp_path / "parquet")
    assert made("monitors.sqlite.parquet=null").parquet is None


def test_measurements_are_made_once_and_from_scratch_unless_told_otherwise(tmp_path: Path) -> None:
    plan = to_plan(composed(tmp_path))
    assert (plan.repeat, plan.reuse) == (1, None)
    plan = to_plan(composed(tmp_path, "repeat=1000", "reuse=outputs/earlier"))
    assert (plan.repeat, plan.reuse) == (1000, Path("outputs/earlier"))


@pytest.mark.parametrize("repeat", [0, -1, 1001])
def test_a_number_of_measurements_that_cannot_be_meant_is_refused(tmp_path: Path, repeat: int) -> None:
    with pytest.raises(UsageError, match=f"repeat is {repeat}") as caught:
        to_plan(composed(tmp_path, f"repeat={repeat}"))
    assert (caught.value.where, bool(caught.value.next_step)) == ("repeat", True)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (("machines.cluster.checked_share=1.5",), "choose 0 … 1"),
        (("machines=host_clock", "machines.cluster.checked_share=0.1"), "do not repeat"),
        (("machines=ssh", "machines.cluster.checked_share=0.1"), "do not repeat"),
        (("machines.cluster.answer_s=0",), "machines.cluster.answer_s"),
    ],
)
def test_what_cannot_be_checked_is_refused_before_anything_starts(
    tmp_path: Path, overrides: tuple[str, ...], word: str
) -> None:
    with pytest.raises(UsageError) as caught:
        to_plan(composed(tmp_path, "machines/cluster=local", *overrides))
    assert word in str(caught.value)


def test_exact_guests_and_the_simulation_can_be_checked(tmp_path: Path) -> None:
    for machines in ("arm64", "amd64", "simulation"):
        plan = to_plan(
            composed(
                tmp_path,
                f"machines={machines}",
                "machines/cluster=local",
                "machines.cluster.checked_share=0.1",
            )
        )
        assert plan.cluster is not None
        assert plan.cluster.checked_share == 0.1
