"""The configs of a sweep's runs are those that Hydra would compose, whatever is swept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra.errors import HydraException, MissingConfigException
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.config.composer import ConfigComposer, ConfigPlaces
from runner.config.errors import explained
from runner.config.files import bound_config_files
from runner.config.plan import to_plan
from runner.config.schemas import register_schemas
from runner.config.sweeping import SweptConfigs
from runner.errors import UsageError
from runner.tasksets.uunifast import UUniFastTaskSets

#: Keys that may be swept, and values that mean something there, with everything that a command line may make of them.
SWEPT = {
    "tasksets.seed": ["1", "2", "-3", "0x10"],
    "repeat": ["1", "2"],
    "machines.count": ["1", "3"],
    "machines.qemu.cpu_mips": ["125", "62.5", "1e2"],
    "machines.qemu.ssh_port": ["null", "2222"],
    "machines.session.realtime_factor": ["null", "2", "'fast'", "${repeat}"],
    "tasksets.periods": ["[20ms]", "['20 ms',40ms]", "[]"],
    "tasksets.utilizations": ["[0.5]", "[1,0.25]"],
    "machines.session": ["{realtime_factor:3}", "{_target_:own.Session}"],
    "machines": ["simulation", "arm64"],
    "monitors": ["[summary]", "[sqlite,csv]"],
    "reuse": ["null", "${oc.env:HOME}", "'a=b,c'", "${hydra:runtime.output_dir}"],
    "+machines.session.more": ["1", "two"],
    "++report": ["false", "true"],
    "experiment": ["g1_reversed", "g1_deadline"],
    "hydra.job.config.override_dirname.kv_sep": ["'-'"],
}


@pytest.fixture(scope="module")
def composer() -> Iterator[ConfigComposer]:
    register_schemas()
    bound_config_files()
    with ConfigComposer(ConfigPlaces()) as made:
        yield made


def content(config: DictConfig) -> str:
    """Every value with its type, references as they are written, and what a schema wants of it."""
    plain = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    return f"{plain!r} {OmegaConf.get_type(config.machines)} {OmegaConf.get_type(config, 'tasksets')}"


@st.composite
def sweeps(draw: st.DrawFn) -> list[str]:
    keys = draw(st.lists(st.sampled_from(sorted(SWEPT)), min_size=1, max_size=4, unique=True))
    several = {"machines=simulation"} if "machines" not in keys else set()
    values = {
        key: draw(st.lists(st.sampled_from(SWEPT[key]), min_size=1, max_size=3, unique=True)) for key in keys
    }
    return [*several, *(f"{key}={','.join(ones)}" for key, ones in values.items())]


# Each example takes Hydra most of a second: what fails is told as it was drawn.
@settings(max_examples=12, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(overrides=sweeps())
def test_configs_are_those_that_hydra_composes(composer, overrides):
    try:
        common = composer.compose(overrides, sweep=True)
    except HydraException:  # what they have in common makes no sense with the groups that are not swept
        return
    configs = composer.sweep(common)
    for number in itertools.islice(range(len(configs)), 4):
        try:
            expected = content(composer.run_of(common, configs.runs[number], number))
        except Exception as exc:  # noqa: BLE001 - whatever Hydra says
            with pytest.raises(type(exc)):
                configs.config(number)
            return
        assert configs.subfolder(number) == str(number)
        assert content(configs.config(number)) == expected


@pytest.mark.parametrize(
    ("swept", "n_composed"),
    [
        (("tasksets.seed=range(9)",), 1),
        (("repeat=1,2,3", "tasksets.periods=[20ms],[40ms]"), 1),
        (("machines=simulation,arm64", "repeat=1,2,3"), 2),
        (("repeat=1,2,3", "machines=simulation,arm64"), 2),
        (("monitors=[summary],[sqlite,csv]", "repeat=1,2"), 2),
        (("+machines.session.more=1,2",), 2),
        (
            (
                "machines=simulation",
                "machines.session.realtime_factor=1,2",
                "machines.session={realtime_factor:3},{realtime_factor:4}",
            ),
            4,
        ),  # one within the other
    ],
)
def test_a_config_is_composed_once_for_each_choice_of_files(composer, swept, n_composed):
    common = composer.compose(swept, sweep=True)
    composed = []

    def compose(overrides: Sequence[str], number: int) -> DictConfig:
        composed.append(number)
        made: DictConfig = composer.run_of(common, overrides, number)
        return made

    configs = SweptConfigs(compose, composer._parser, composer._is_group, composer.sweep(common).runs)
    for number in range(len(configs)):
        assert configs.subfolder(number) == str(number)
        configs.config(number)
    assert len(composed) == n_composed


def test_plans_are_those_of_each_config_by_itself(composer):
    swept = ("machines.count=1,2", "tasksets.seed=1,2", "tasksets.periods=[20ms],[40ms]", "repeat=1,3")
    configs = composer.sweep(composer.compose(["machines=simulation", *swept], sweep=True))
    for number in range(len(configs)):
        plan = configs.check(number, Path("/nowhere"), lambda own: None)
        assert plan is not None
        own = configs.config(number)
        del own.__dict__["_content"]["hydra"]
        alone = to_plan(own)
        for name in ("count", "repeat", "seed", "limit", "qemu", "policy", "reserves", "expected", "reset"):
            assert getattr(plan, name) == getattr(alone, name)
        assert isinstance(plan.tasksets, UUniFastTaskSets)
        assert isinstance(alone.tasksets, UUniFastTaskSets)
        assert [one.tasks for one in plan.tasksets.variants()] == [
            one.tasks for one in alone.tasksets.variants()
        ]


@pytest.mark.parametrize(
    "swept",
    [
        "machines.limit=3,0",
        "tasksets.n_tasks=3,???",
        "tasksets.policy=fifo,lifo",
        "repeat=1,5000",
        "machines.policy.max_tries=1,-${repeat}",
    ],
)
def test_the_second_value_is_checked_as_the_first(composer, swept):
    configs = composer.sweep(composer.compose(["machines=simulation", swept], sweep=True))
    assert configs.check(0, Path("/nowhere"), lambda own: None)
    with pytest.raises((UsageError, HydraException, OmegaConfBaseException)):
        configs.check(1, Path("/nowhere"), lambda own: None)


def test_what_refers_to_a_swept_value_is_checked_again(composer):
    refers = "machines.limit=${tasksets.seed}"
    configs = composer.sweep(
        composer.compose(["machines=simulation", refers, "tasksets.seed=4,0"], sweep=True)
    )
    assert configs.check(0, Path("/nowhere"), lambda own: None)
    with pytest.raises(UsageError, match=r"machines\.limit is 0"):
        configs.check(1, Path("/nowhere"), lambda own: None)


def test_sweep_of_nothing_is_one_run(composer):
    configs = composer.sweep(composer.compose(["machines=simulation", "repeat=2"], sweep=True))
    assert (len(configs), configs.config(0).repeat) == (1, 2)


def test_options_that_are_not_there_are_told_before_the_first_run(composer):
    configs = composer.sweep(composer.compose(["machines=simulation,nowhere"], sweep=True))
    configs.config(0)
    with pytest.raises(MissingConfigException, match="nowhere"):
        configs.subfolder(1)


def test_other_sweepers_are_refused(composer):
    common = composer.compose(["repeat=1,2", "hydra.sweeper._target_=own.Sweeper"], sweep=True)
    with pytest.raises(UsageError, match="hydra/sweeper is not basic"):
        composer.sweep(common)


def test_launcher_that_is_not_installed_is_told_how_to_get(composer):
    with pytest.raises(MissingConfigException) as caught:
        composer.compose(["hydra/launcher=nowhere"], sweep=True)
    error = explained(caught.value)
    assert "there is no launcher 'nowhere'" in error.what
    assert "joblib" in error.what  # is installed
    assert "rtfleet[sweeps]" in error.next_step


def test_secrets_among_swept_values_are_refused(composer):
    # From a config file; on the command line they are refused before.
    common = composer.compose(["repeat=1,2"], sweep=True)
    common.hydra.overrides.task = ["reuse=here,'mongodb://me:hunter2@host/'"]
    configs = composer.sweep(common)
    configs.config(0)
    with pytest.raises(UsageError, match="reuse holds a password"):
        configs.config(1)
