"""The files of config folders: looked at before Hydra reads them, which unfolds whatever they refer to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from runner.errors import UsageError
from runner.files.durable import read_start

# Measured: so many values take Hydra 200 MiB and 10 s.
MAX_VALUES = 100_000
MAX_VALUE_BYTES = 80  # on average
MAX_DEPTH = 60
# libyaml's parser, where PyYAML was built with it, is ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BoundedFiles(FileConfigSource):
    """Hydra's own reader of files, for those that are not too much for it."""

    def load_config(self, config_path: str) -> ConfigResult:
        """As Hydra does it.

        Raises:
            UsageError: when the file is too large, too deep, or unfolds to too many values.
        """
        check_size(Path(self.path, self._normalize_file_name(config_path)))
        return super().load_config(config_path)


def bound_config_files() -> None:
    """Have Hydra read files through `BoundedFiles` from now on."""
    Plugins.instance()  # registers its own reader, once
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = BoundedFiles


@contextmanager
def unbound_config_files() -> Iterator[None]:
    """As Hydra has it while the block lasts: for what is handed to processes in which Hydra registers its own reader."""
    types = SourcesRegistry.instance().types
    types[FileConfigSource.scheme()] = FileConfigSource
    try:
        yield
    finally:
        types[FileConfigSource.scheme()] = BoundedFiles


def check_size(path: Path, max_values: int = MAX_VALUES) -> None:
    """Refuse a YAML file that is too much; what is no YAML at all is for who reads it to tell.

    Raises:
        UsageError: as `BoundedFiles.load_config`.
    """
    try:
        data = read_start(path, max_values * MAX_VALUE_BYTES + 1)
    except OSError:
        return
    if len(data) > max_values * MAX_VALUE_BYTES:
        raise _too_much(path, f"is longer than {max_values * MAX_VALUE_BYTES} bytes")
    try:
        n_values = _n_values(path, yaml.parse(data, Loader=_LOADER), endless=max_values + 1)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return
    if n_values > max_values:
        raise _too_much(path, f"unfolds to more than {max_values} values")


def _n_values(path: Path, events: Iterator[yaml.Event], *, endless: int) -> int:
    """How many values a document is when every alias is replaced by what it stands for."""
    known: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        match event:
            case yaml.AliasEvent():
                total += known.get(event.anchor or "", 0)
            case yaml.ScalarEvent():
                total += 1
                known[event.anchor or ""] = 1
            case yaml.CollectionStartEvent():
                if len(open_nodes) == MAX_DEPTH:
                    raise _too_much(path, f"is nested more than {MAX_DEPTH} levels deep")
                open_nodes.append((event.anchor, total))
                known[event.anchor or ""] = endless  # as long as it is open: what holds itself has no end
                total += 1
            case yaml.CollectionEndEvent():
                anchor, before = open_nodes.pop()
                known[anchor or ""] = total - before
    return total


def _too_much(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{path.name} {what}",
        where=str(path),
        next_step="for many task sets write a class that yields them: tasksets=custom",
    )
