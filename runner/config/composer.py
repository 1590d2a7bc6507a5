"""How a command line becomes composed configs, for one run or for each of a sweep: the only place that drives Hydra."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from runner.config.plan import CONF_FOLDER
from runner.config.record import RunRecord
from runner.config.sweeping import SweptConfigs
from runner.errors import UsageError
from runner.text.secrets import literal_secrets, secret_values

JOB_NAME = "runner"
_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class ConfigPlaces:
    """Where config files are looked for.

    Attributes:
        name: Of the primary config.
        main: The folder that has it, or an address that Hydra understands.
        added: A folder of the user's that comes first; None: none.
    """

    name: str = "config"
    main: str = str(CONF_FOLDER)
    added: str | None = None


class ConfigComposer:
    """Composes configs from files and overrides, and hands them to what is to be done with them.

    Hydra's state is global: one composer at a time, in the main thread. A context manager.

    Raises:
        HydraException, OmegaConfBaseException: from every method, when files or overrides make no sense.
        UsageError: when a composed config holds a password or token itself; the message does not show it.
    """

    def __init__(self, places: ConfigPlaces) -> None:
        self._places = places
        self._hydra: Hydra | None = None

    def __enter__(self) -> ConfigComposer:
        search_path = create_config_search_path(self._places.main)
        if self._places.added is not None:
            if not os.path.isdir(self._places.added):
                raise UsageError(
                    f"the config folder {self._places.added} is not there",
                    where="--config-dir",
                    next_step="correct the path; it is read from the present folder",
                )
            search_path.prepend(
                provider="command-line",
                path=f"file://{os.path.abspath(self._places.added)}",
                anchor=SearchPathQuery(provider="schema"),
            )
        self._hydra = Hydra.create_main_hydra2(task_name=JOB_NAME, config_search_path=search_path)
        return self

    def __exit__(self, *exc: object) -> None:
        GlobalHydra.instance().clear()

    def compose(self, overrides: Sequence[str], *, sweep: bool = False) -> DictConfig:
        """The config of a run, or what the runs of a sweep have in common; with Hydra's own part."""
        config = self._made.compose_config(
            config_name=self._places.name,
            overrides=list(overrides),
            run_mode=RunMode.MULTIRUN if sweep else RunMode.RUN,
        )
        return _sound(config, sweep=sweep)

    def swept(self, record: RunRecord) -> list[dict[str, str]]:
        """What is different in each run of a sweep: key -> override. One empty entry where nothing is swept."""
        parsed = self._parsed(OmegaConf.create({"hydra": record.hydra}))
        several = {key: ones for key, ones in parsed.items() if len(ones) > 1}
        return [dict(zip(several, run, strict=True)) for run in itertools.product(*several.values())]

    def sweep(self, config: DictConfig) -> SweptConfigs:
        """The configs of a sweep's runs, in their order."""
        runs = [list(run) for run in itertools.product(*self._parsed(config).values())]
        return SweptConfigs(
            lambda overrides, number: self.run_of(config, overrides, number),
            self._parser,
            self._is_group,
            runs,
        )

    def _parsed(self, config: DictConfig) -> dict[str, list[str]]:
        """Key -> its overrides, several where it is swept; as Hydra's own sweeper takes them."""
        if OmegaConf.select(config, "hydra.sweeper._target_") != _SWEEPER:
            raise UsageError(
                "hydra/sweeper is not basic",
                where="hydra.sweeper",
                next_step="leave it out: which runs a sweep has must be known before the first",
            )
        texts = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        texts += OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # type: ignore[arg-type] # a list
        parsed: dict[str, list[str]] = {}
        for one in self._parser.parse_overrides(texts):
            key = one.get_key_element()
            if not one.is_sweep_override():
                parsed[key] = [f"{key}={one.get_value_element_as_str()}"]
            elif one.is_discrete_sweep():
                parsed[key] = [f"{key}={value}" for value in one.sweep_string_iterator()]
            else:
                raise UsageError(
                    f"{one.input_line!r} is no list of values", next_step="write key=1,2,3 or key=range(1,4)"
                )
        return parsed

    def run_of(self, config: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
        """The config of one run of a sweep."""
        one = self._made.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(one):
            one.hydra.job.id = one.hydra.job.num = number
        return _sound(one, sweep=True)

    def carry_out(self, config: DictConfig, folder: Path, task: Callable[[DictConfig], None]) -> None:
        """Call `task` with the config of a run, without Hydra's part; what is logged meanwhile goes to `folder`.

        `task` must raise nothing: Hydra would keep it.
        """
        with open_dict(config), read_write(config.hydra):
            config.hydra.run.dir = str(folder)
            config.hydra.output_subdir = (
                None  # what is stored of a config is written by us, whole and durably
            )
        run_job(
            hydra_context=HydraContext(config_loader=self._made.config_loader, callbacks=Callbacks(config)),
            task_function=task,
            config=config,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
        )

    def _is_group(self, key: str) -> bool:
        return bool(self._made.config_loader.repository.group_exists(key))  # type: ignore[attr-defined] # of the one that there is

    @property
    def _parser(self) -> OverridesParser:
        return OverridesParser.create(config_loader=self._made.config_loader)

    @property
    def _made(self) -> Hydra:
        if self._hydra is None:
            raise UsageError("ConfigComposer used outside of its `with` block", next_step="enter it first")
        return self._hydra


def record_of(config: DictConfig) -> RunRecord:
    """What is stored of a composed config; references stay references."""
    plain = _plain(config)
    return RunRecord(hydra=plain.pop("hydra"), config=plain)


def folder_of(config: DictConfig, *, sweep: bool) -> Path:
    """Where Hydra's part of the config wants the run, or the sweep, to be."""
    HydraConfig.instance().set_config(config)
    return Path(os.path.abspath(config.hydra.sweep.dir if sweep else config.hydra.run.dir))


def secrets_in(config: DictConfig) -> frozenset[str]:
    """The secrets that the references in a config lead to, as far as they can be followed."""
    return secret_values(_followed(config))


def _followed(node: Any) -> Any:  # noqa: ANN401 - whatever a config can hold
    if not isinstance(node, DictConfig | ListConfig):
        return node
    found: dict[object, Any] = {}
    keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        with suppress(OmegaConfBaseException):  # its value is missing, or nowhere to be found
            found[key] = _followed(node[key])
    return found


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _sound(config: DictConfig, *, sweep: bool) -> DictConfig:
    """The config, if nothing in it is secret that would be written down with it."""
    with open_dict(config), read_write(config.hydra):
        config.hydra.mode = RunMode.MULTIRUN if sweep else RunMode.RUN
        for name in config.hydra.job.env_copy:  # Hydra puts their values there
            config.hydra.job.env_set[name] = f"${{oc.env:{name}}}"
    plain = _plain(config)
    # Made of the overrides, each of which was looked at.
    del plain["hydra"]["job"]["override_dirname"]
    for key in literal_secrets(plain):
        raise UsageError(
            f"{key} holds a password or token, which would be written down with the config",
            where=key,
            next_step=f"put it into an environment variable, and write '{key}=${{oc.env:NAME}}'",
        )
    return config
