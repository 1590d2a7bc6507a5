"""What is stored of a run, or of a sweep, before it begins: its composed config and the overrides that led to it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from runner.config.files import MAX_VALUES, check_size
from runner.errors import UsageError
from runner.files.durable import replace_text, sync_folder
from runner.paths import RunPaths

_CONFIG, _OVERRIDES, _HYDRA = "config.yaml", "overrides.yaml", "hydra.yaml"
# The one in C where there is one; both make plain values only, and refuse tags.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class RunRecord:
    """A composed config as plain values; references (`${…}`) are kept as they were written.

    Attributes:
        hydra: Hydra's own part.
        config: Everything else.
    """

    hydra: dict[str, Any]
    config: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        """What was given on the command line for the config, or for one run of a sweep."""
        return [str(one) for one in self.hydra["overrides"]["task"]]

    @property
    def hydra_overrides(self) -> list[str]:
        """What was given for Hydra's own part."""
        return [str(one) for one in self.hydra["overrides"]["hydra"]]

    @property
    def config_name(self) -> str:
        """The primary config."""
        return str(self.hydra["job"]["config_name"])

    def config_folder(self, provider: str) -> str | None:
        """Where config files were looked for: in the `main` folder, and first of all in that of the `command-line`."""
        sources = self.hydra["runtime"]["config_sources"]
        found = [one for one in sources if one["provider"] == provider]
        if not found:
            return None
        return (
            str(found[0]["path"]) if found[0]["schema"] == "file" else "{schema}://{path}".format(**found[0])
        )

    @property
    def working_folder(self) -> Path:
        """Where the command was given: what relative paths refer to."""
        return Path(self.hydra["runtime"]["cwd"])

    def write(self, folder: Path) -> None:
        """Store it in a run folder that has none yet, all at once: a crash leaves all of it, or nothing.

        Raises:
            OSError: the folder cannot be written, or has one.
        """
        paths = RunPaths(folder)
        partial = Path(tempfile.mkdtemp(prefix=f".{paths.record.name}.", dir=folder))
        try:
            for name, text in self._texts().items():
                replace_text(partial / name, text, sync=True)
            partial.rename(paths.record)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(folder)

    def replace(self, folder: Path) -> None:
        """Store it in the place of another one.

        A crash half-way leaves a config and overrides that do not go together, which shows when they are compared.
        """
        for name, text in self._texts().items():
            replace_text(RunPaths(folder).record / name, text, sync=True)

    def write_sweep(self, folder: Path) -> None:
        """Store it as that of a sweep, in the place of an older one."""
        replace_text(RunPaths(folder).sweep, _yaml({"hydra": self.hydra, **self.config}), sync=True)

    def _texts(self) -> dict[str, str]:
        return {
            _OVERRIDES: _yaml(self.overrides),
            _CONFIG: _yaml(self.config),
            _HYDRA: _yaml({"hydra": self.hydra}),
        }


def read_record(folder: Path) -> RunRecord:
    """What is stored of the run, or of the sweep, in a folder.

    Raises:
        UsageError: nothing is, or it is damaged; says what to do.
    """
    paths = RunPaths(folder)
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder",
            where="resume",
            next_step="name the run folder: the last line of a run's output, or a folder under outputs/",
        )
    if paths.sweep.exists():
        whole = _read(paths.sweep)
        return _checked(RunRecord(hydra=whole.pop("hydra", {}), config=whole), paths.sweep)
    if not paths.record.exists():
        raise UsageError(
            f"{folder} holds no run that had begun: there is no config in it, so nothing was measured",
            where=str(folder),
            next_step="start it again, as it was started",
        )
    hydra = _read(paths.record / _HYDRA).get("hydra", {})
    return _checked(RunRecord(hydra=hydra, config=_read(paths.record / _CONFIG)), paths.record)


def _read(path: Path) -> dict[str, Any]:
    check_size(path, max_values=4 * MAX_VALUES)  # composed of several files
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        yaml.YAMLError,
        RecursionError,
    ) as exc:  # PyYAML's own slips, too
        raise _damaged(path, str(exc).splitlines()[0] if str(exc) else type(exc).__name__) from exc
    if not isinstance(content, dict):
        raise _damaged(path, "it is no mapping")
    return content


def _checked(record: RunRecord, path: Path) -> RunRecord:
    """The record, if all that is asked of it is there."""
    try:
        _ = (record.overrides, record.hydra_overrides, record.config_name, record.working_folder)
        for provider in ("main", "command-line"):
            record.config_folder(provider)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise _damaged(path, f"{type(exc).__name__}: {exc}") from exc
    return record


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is damaged: {why}",
        where=str(path),
        next_step="the data set can be read all the same; to measure on, start a new run with reuse=RUN_FOLDER",
    )


def _yaml(value: dict[str, Any] | list[str]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(value))
