"""The command line: Hydra composes the config, and every error becomes one screen and an exit code."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.config import CONF_FOLDER, register_schemas, to_plan
from runner.errors import HostError, RunnerError, UsageError
from runner.exit_codes import ExitCode
from runner.run import execute, exit_code_of

_log = logging.getLogger("runner.cli")
# A sweep ends with the code that asks for attention most.
_WORST_FIRST = (
    ExitCode.BUG,
    ExitCode.USAGE,
    ExitCode.HOST,
    ExitCode.STOPPED,
    ExitCode.BAD_TASKSETS,
    ExitCode.OK,
)


def main() -> int:
    """Run what the command line says; returns the exit code. `--multirun` runs several, one after the other."""
    register_schemas()
    # Otherwise Hydra prints errors in its own way and ends with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    codes: list[ExitCode] = []

    @hydra.main(config_path=str(CONF_FOLDER), config_name="config", version_base="1.3")
    def run(config: DictConfig) -> None:
        if ExitCode.STOPPED not in codes:  # an operator who stops a sweep means all of it
            codes.append(_run(config))

    try:
        run()
    except (HydraException, OmegaConfBaseException) as exc:
        codes.append(_show(_explained(exc)))
    except RunnerError as exc:
        codes.append(_show(exc))
    except OSError as exc:  # Hydra could not make the run folder
        codes.append(_show(HostError(f"the run folder cannot be made: {exc}", next_step="set hydra.run.dir")))
    return next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)


def _run(config: DictConfig) -> ExitCode:
    runtime = HydraConfig.get()
    folder = Path(runtime.runtime.output_dir)
    overrides = [str(override) for override in runtime.overrides.task]
    seed = OmegaConf.select(config, "tasksets.seed", throw_on_missing=False)
    try:
        code = execute(to_plan(config), folder, overrides=overrides, seed=seed)
    except (RunnerError, HydraException, OmegaConfBaseException) as exc:
        return _show(exc if isinstance(exc, RunnerError) else _explained(exc))
    except Exception:  # noqa: BLE001 - the main thread's top
        _log.exception("a bug ended the run")
        return ExitCode.BUG
    print(f"run folder: {_shown(folder)}")
    if code is ExitCode.BAD_TASKSETS:
        print(f"some task sets are bad; why: {_shown(folder / 'distributor.log')}", file=sys.stderr)
    return code


def _shown(path: Path) -> str:
    """A path as short as it can be typed."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _show(error: RunnerError) -> ExitCode:
    print(f"error: {error}", file=sys.stderr)
    return exit_code_of(error)


def _explained(exc: Exception) -> UsageError:
    """What is wrong with the config, in one screen: the key, the cause, the nearest key that there is."""
    text = str(exc.__cause__ or exc) if isinstance(exc, HydraException) else str(exc)
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    key = _key(text, str(exc)) or str(getattr(cause, "full_key", None) or "")
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(exc).__name__)
    if "not in struct" in text or "not in '" in text or "Could not override" in str(exc):
        near = difflib.get_close_matches(key, _known_keys(), n=1, cutoff=0.5)
        return UsageError(
            f"{key or first}: {'no such key' if 'not in' in text else first}",
            where=key,
            next_step=f"did you mean {near[0]}?" if near else "python -m runner --cfg job shows every key",
        )
    return UsageError(
        f"{key}: {first}" if key and key not in first else first,
        where=key,
        next_step="python -m runner --cfg job shows the config, --help the groups",
    )


def _key(*texts: str) -> str:
    for text in texts:
        for pattern in (r"Could not override '([^']+)'", r"full_key: (\S+)"):
            match = re.search(pattern, text)
            if match:
                return match[1]
    return ""


def _known_keys() -> list[str]:
    with hydra.initialize_config_dir(str(CONF_FOLDER), version_base="1.3"):
        config = hydra.compose("config", return_hydra_config=False)
    return list(_flat(config, ""))


def _flat(config: DictConfig, prefix: str) -> Iterable[str]:
    for key in config:
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(config, str(key)) and not OmegaConf.is_interpolation(config, str(key)):
            node = config[str(key)]
            if isinstance(node, DictConfig):
                yield from _flat(node, f"{name}.")
