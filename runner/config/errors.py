"""What is wrong with a config, in one screen: the key, the cause, and what there is instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError

from runner.config.plan import CONF_FOLDER
from runner.errors import RunnerError, UsageError, host_error

_SHOW_CONFIG = "python -m runner --cfg job shows the config, --help the groups"


def is_config_error(exc: Exception) -> bool:
    """Whether it says that a config makes no sense."""
    return isinstance(exc, HydraException | OmegaConfBaseException)


def explained(exc: Exception) -> RunnerError:
    """What Hydra or OmegaConf found wrong, as an error of ours: the key, the cause, and what there is instead."""
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
    if group == "hydra/launcher":
        return UsageError(
            f"there is no launcher {name!r}; there are: {', '.join(options)}",
            where=group,
            next_step="pip install 'rtfleet[sweeps]' has joblib, submitit_local and submitit_slurm",
        )
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
    if near:
        return f"did you mean {near[0]}?"
    return (
        f"choose one of: {', '.join(known)}" if known else "there is none yet: write + before it to add one"
    )


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
