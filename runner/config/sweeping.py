"""The configs of a sweep's runs: Hydra composes one for each choice of files; what else differs is set in a copy of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import env_override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from runner.config.plan import RunPlan, to_plan
from runner.errors import UsageError
from runner.text.secrets import literal_secrets

_PLAIN_KEY = re.compile(r"\w+(\.\w+)*")
# References whose values are the same in all runs of a sweep, or differ by the run's folder alone.
_HARMLESS = re.compile(r"\$\{(run_folder|hydra:runtime\.output_dir|oc\.env:\w+)\}")


@dataclass
class _Family:
    """Runs whose configs differ in plain values only.

    Attributes:
        base: The config of one of them, with Hydra's part; stays as it is.
        keys: What differs.
        plan: What the one that was looked at first comes to.
        shown: Whose values `whole` and `own` have now.
    """

    base: DictConfig
    keys: frozenset[str]
    plan: RunPlan | None = None
    shown: int | None = None

    @cached_property
    def whole(self) -> DictConfig:
        """One that is changed in place, to be looked at."""
        return copy.deepcopy(self.base)

    @cached_property
    def own(self) -> DictConfig:
        """The same without Hydra's part."""
        own = copy.deepcopy(self.base)
        with open_dict(own), read_write(own):
            del own["hydra"]
        return own

    @cached_property
    def changed(self) -> frozenset[str]:
        """The top-level sections whose values may differ: what is set there, and what refers to anything."""
        sections = {str(key): self.own._get_node(key) for key in self.own}
        referring = {key for key, node in sections.items() if "${" in _HARMLESS.sub("", str(node))}
        return frozenset({key.partition(".")[0] for key in self.keys} | referring)

    def forget(self) -> None:
        """Let go of what is there to be looked at, where no other run will need it."""
        if not self.keys:
            vars(self).pop("whole", None)
            vars(self).pop("own", None)


class SweptConfigs:
    """The config of each run of a sweep.

    Guarantees: the same config as Hydra makes of the run's overrides.
    Hydra's state is global: for the main thread, while the composer is open.

    Args:
        compose: Has Hydra make the config of a run, of its overrides and its number.
        parser: Hydra's.
        is_group: Whether there are files to choose of under this name.
        runs: The overrides of each run.
    """

    def __init__(
        self,
        compose: Callable[[Sequence[str], int], DictConfig],
        parser: OverridesParser,
        is_group: Callable[[str], bool],
        runs: Sequence[Sequence[str]],
    ) -> None:
        self._compose = compose
        self._parser = parser
        self._is_group = is_group
        self.runs = runs
        self._several = self._swept_keys()
        # Keys that turned out to be a group's, or to lead elsewhere.
        self._bound: set[str] = set()
        self._parsed: dict[str, Override] = {}
        self._families: dict[tuple[str, ...], _Family] = {}
        self._last: _Family | None = None

    def __len__(self) -> int:
        return len(self.runs)

    def config(self, number: int) -> DictConfig:
        """Of one run, with Hydra's part; the caller's own."""
        family = self._family(number)
        config = copy.deepcopy(family.base)
        self._set(config, family, number)
        return config

    def subfolder(self, number: int) -> str:
        """Where a run is, within the sweep's folder."""
        return str(self._shown(number).whole.hydra.sweep.subdir)

    def check(self, number: int, folder: Path, learn: Callable[[DictConfig], None]) -> RunPlan | None:
        """The plan of a run, as it will come out in its folder; nothing is written.

        What differs from an earlier run's by nothing but the folder was checked then.

        Args:
            learn: Is told the config before it is checked.

        Returns:
            None where relative paths mean something in the run's folder alone (`hydra.job.chdir`): it cannot be checked yet.

        Raises:
            UsageError: it cannot be meant.
        """
        family = self._shown(number)
        with read_write(family.whole.hydra), read_write(family.whole.hydra.runtime), open_dict(family.whole):
            family.whole.hydra.run.dir = family.whole.hydra.runtime.output_dir = str(folder)
        hydra = family.whole.hydra
        with env_override(OmegaConf.to_container(hydra.job.env_set, resolve=True)):  # type: ignore[arg-type] # a dictionary
            if family.plan is None or any(
                "${" in str(one.input_line) for one in self._changes(family, number)
            ):
                learn(family.own)
            if hydra.job.chdir:
                return None
            plan = to_plan(family.own, known=family.plan, changed=family.changed)
            family.plan = family.plan or plan
            return plan

    def _swept_keys(self) -> frozenset[str]:
        """Keys that do not have the same value in all runs."""
        parts = [{one.partition("=")[0]: one for one in run} for run in self.runs]
        return frozenset(key for key in parts[0] if any(run[key] != parts[0][key] for run in parts))

    def _family(self, number: int) -> _Family:
        mark, keys = self._mark(number)
        if mark not in self._families:
            base = self._compose(self.runs[number], number)
            self._bound |= {key for key in keys if not _leads_there(base, key)}
            mark, keys = self._mark(number)
            self._families.setdefault(mark, _Family(base, keys))
        return self._families[mark]

    def _mark(self, number: int) -> tuple[tuple[str, ...], frozenset[str]]:
        """What runs of one family have in common, and the keys in which they differ."""
        overrides = [self._override(text) for text in self.runs[number]]
        keys = frozenset(one.key_or_group for one in overrides if self._is_plain(one, overrides))
        mark = tuple(
            f"{one.key_or_group} {type(one.value()).__name__}"
            if one.key_or_group in keys
            else str(one.input_line)
            for one in overrides
        )
        return mark, keys

    def _is_plain(self, override: Override, others: Sequence[Override]) -> bool:
        """Whether it replaces one value that the others have nothing to do with, by a number, a text or a list."""
        key = override.key_or_group
        return (
            key in self._several
            and key not in self._bound
            and override.get_key_element() == key
            and _PLAIN_KEY.fullmatch(key) is not None
            and not isinstance(override.value(), dict)
            and not self._is_group(key)
            and not any(one is not override and _overlap(one.key_or_group, key) for one in others)
        )

    def _override(self, text: str) -> Override:
        if text not in self._parsed:
            self._parsed[text] = self._parser.parse_override(text)
        return self._parsed[text]

    def _shown(self, number: int) -> _Family:
        """The run's family, which shows its config."""
        family = self._family(number)
        if family is not self._last and self._last is not None:
            self._last.forget()
        self._last = family
        if family.shown != number:
            self._set(family.whole, family, number)
            ConfigLoaderImpl._apply_overrides_to_config(self._changes(family, number), family.own)
            family.shown = number
        HydraConfig.instance().cfg = family.whole  # type: ignore[assignment] # as Hydra itself does, untyped
        return family

    def _changes(self, family: _Family, number: int) -> list[Override]:
        overrides = (self._override(text) for text in self.runs[number])
        return [one for one in overrides if one.key_or_group in family.keys]

    def _set(self, config: DictConfig, family: _Family, number: int) -> None:
        """What Hydra would have made different for this run."""
        if not family.keys:
            return
        changes = self._changes(family, number)
        for key in literal_secrets({one.key_or_group: one.value() for one in changes}):
            raise UsageError(
                f"{key} holds a password or token, which would be written down with the config",
                where=key,
                next_step=f"put it into an environment variable, and write '{key}=${{oc.env:NAME}}'",
            )
        ConfigLoaderImpl._apply_overrides_to_config(changes, config)
        with open_dict(config), read_write(config.hydra):
            job = config.hydra.job
            job.id = job.num = number
            config.hydra.overrides.task = list(self.runs[number])
            named = job.config.override_dirname
            job.override_dirname = get_overrides_dirname(
                overrides=[self._override(text) for text in self.runs[number]],
                kv_sep=named.kv_sep,
                item_sep=named.item_sep,
                exclude_keys=named.exclude_keys,
            )


def _overlap(one: str, other: str) -> bool:
    """Whether one key is the other, or has it within."""
    return (
        one == other or one.startswith((f"{other}.", f"{other}[")) or other.startswith((f"{one}.", f"{one}["))
    )


def _leads_there(config: DictConfig, key: str) -> bool:
    """Whether the key is no group's, and its place is reached without a reference."""
    if key in config.hydra.runtime.choices:
        return False
    node = config
    for name in key.split(".")[:-1]:
        if name not in node or OmegaConf.is_interpolation(node, name):
            return False
        node = node[name]
        if not isinstance(node, DictConfig):
            return False
    return True
