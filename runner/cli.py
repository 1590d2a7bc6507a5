"""The command line: Hydra composes the config, and every error becomes one screen and an exit code."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from runner.config import CONF_FOLDER, to_plan
from runner.config_files import bound_config_files
from runner.config_schemas import register_schemas
from runner.errors import RunnerError, UsageError
from runner.exit_codes import ExitCode
from runner.run import execute, exit_code_of, host_error

# A sweep ends with the code that asks for attention most.
_WORST_FIRST = (
    ExitCode.BUG,
    ExitCode.USAGE,
    ExitCode.HOST,
    ExitCode.STOPPED,
    ExitCode.BAD_TASKSETS,
    ExitCode.OK,
)
_SHOW_CONFIG = "python -m runner --cfg job shows the config, --help the groups"
_log = logging.getLogger("runner.cli")


def main() -> int:
    """Run what the command line says; returns the exit code. `--multirun` runs several, one after the other."""
    register_schemas()
    bound_config_files()
    # Otherwise Hydra prints errors in its own way and ends with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # A log on a full disk: what the run cannot do without tells so itself.
    logging.raiseExceptions = False
    codes: list[ExitCode] = []

    @hydra.main(config_path=str(CONF_FOLDER), config_name="config", version_base="1.3")
    def run(config: DictConfig) -> None:
        codes.append(_run(config))
        if codes[-1] is ExitCode.STOPPED:
            # The operator who stops one run of a sweep means all of it; Hydra goes on after anything else.
            raise KeyboardInterrupt

    try:
        run()
    except KeyboardInterrupt:
        codes.append(ExitCode.STOPPED)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it was raised before our own code began
        codes.append(_show(explained(exc)))
    return next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)


def _run(config: DictConfig) -> ExitCode:
    """One run. Raises nothing: Hydra would go on with the next run of a sweep, and report the first error only."""
    runtime = HydraConfig.get()
    folder = Path(runtime.runtime.output_dir)
    # Unresolved: an override may itself hold a ${…}, which means another place.
    overrides = [str(node) for node in OmegaConf.to_container(runtime.overrides.task, resolve=False) or ()]
    try:
        code = execute(to_plan(config), folder, overrides=overrides)
    except (RunnerError, HydraException, OmegaConfBaseException) as exc:
        _log.info("the run ends with an error", exc_info=True)
        return _show(exc if isinstance(exc, RunnerError) else explained(exc))
    except Exception as exc:  # noqa: BLE001 - the main thread's top
        _log.info("a bug ends the run", exc_info=True)
        summary = next(iter(str(exc).splitlines()), "")
        return _show(
            RunnerError(
                f"a bug ended the run: {type(exc).__name__}: {summary}",
                log_path=folder / "distributor.log",
                next_step="please report it, with that log",
            )
        )
    _print(f"run folder: {_shown(folder)}")
    if code is ExitCode.BAD_TASKSETS:
        print(f"some task sets are bad; why: {_shown(folder / 'distributor.log')}", file=sys.stderr)
    return code


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # `python -m runner | head`: what was measured counts, not who reads along
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _shown(path: Path) -> str:
    """A path as short as it can be typed."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _show(error: RunnerError) -> ExitCode:
    print(f"error: {error}", file=sys.stderr)
    return exit_code_of(error)


# What is wrong with a config, in one screen: the key, the cause, and what there is instead.


def explained(exc: Exception) -> RunnerError:
    """What is wrong with a config or a command line, from whatever Hydra and OmegaConf raised about it."""
    if isinstance(exc, MissingConfigException):
        return _no_such_option(exc)
    if isinstance(exc, OverrideParseException):
        return UsageError(
            f"{exc.override!r} is no override",
            where="the command line",
            next_step="write key=value, in quotes for the shell: 'tasksets.periods=[20ms, 40ms]'",
        )
    for cause in _causes(exc):
        if isinstance(cause, RunnerError):
            return cause
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return _no_such_key(cause, exc)
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return UsageError(
                f"{cause.full_key}: {_first_line(cause)}",
                where=_place(exc) or str(cause.full_key),
                next_step=_SHOW_CONFIG,
            )
        if isinstance(cause, MarkedYAMLError) and cause.problem_mark is not None:
            mark = cause.problem_mark
            return UsageError(
                f"{mark.name} is no valid YAML: {cause.problem}",
                where=f"{mark.name}:{mark.line + 1}",
                next_step="correct the file",
            )
        if isinstance(cause, OSError):
            return host_error(cause, "hydra.run.dir")
    if given_twice := re.match(r"Multiple values for (\S+)\.", str(exc)):
        group = given_twice[1]
        return UsageError(
            f"{group} is chosen already", where=group, next_step=f"write {group}=…, without the + before it"
        )
    if str(exc).startswith("Ambiguous value"):
        return UsageError(_first_line(exc), next_step="write [1, 2] for a list; --multirun sweeps over 1,2")
    if not isinstance(exc, HydraException):
        return UsageError(
            f"the command line or a config file makes no sense: {_first_line(exc)}", next_step=_SHOW_CONFIG
        )
    return UsageError(_first_line(exc), next_step=_SHOW_CONFIG)


def _no_such_option(exc: MissingConfigException) -> UsageError:
    group, _, name = (exc.missing_cfg_file or "").rpartition("/")
    if not group:
        return UsageError(_first_line(exc), next_step="leave --config-name out, or see --config-dir")
    # Hydra lists them unless several may be chosen.
    options = exc.options or sorted(path.stem for path in (CONF_FOLDER / group).glob("*.yaml"))
    options = [option for option in options if not option.startswith("base_")]
    return UsageError(f"{group} has no option {name!r}", where=group, next_step=_nearest(name, options))


def _no_such_key(cause: ConfigKeyError | ConfigAttributeError, exc: Exception) -> UsageError:
    key = str(cause.full_key)
    prefix, _, name = key.rpartition(".")
    parent = cause.parent_node if isinstance(cause.parent_node, DictConfig) else OmegaConf.create({})
    if key == "experiment":
        next_step = "begin the file with the line: # @package _global_"
    elif not prefix and (deeper := [known for known in _keys(parent) if known.endswith(f".{name}")]):
        next_step = f"did you mean {' or '.join(deeper)}?"
    else:
        dot = f"{prefix}." if prefix else ""
        next_step = _nearest(key, [f"{dot}{known!s}" for known in parent])
    return UsageError(f"there is no key {key}", where=_place(exc) or key, next_step=next_step)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else f"choose one of: {', '.join(known)}"


def _keys(config: DictConfig, prefix: str = "") -> Iterable[str]:
    """Every key below, in full."""
    for key in map(str, config):
        yield f"{prefix}{key}"
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if isinstance(node := config[key], DictConfig):
            yield from _keys(node, f"{prefix}{key}.")


def _place(exc: Exception) -> str:
    """Which file of a config folder it is about; empty for the command line."""
    named = re.match(r"In '([^']+)'", str(exc))
    return f"{named[1]}.yaml" if named else ""


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _first_line(exc: BaseException) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
