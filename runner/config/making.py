"""The objects that a config names by `_target_`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from runner.errors import RunnerError, UsageError

# What would change how Hydra makes an object; nobody needs it here.
_HYDRA_KEYS = frozenset({"_args_", "_convert_", "_partial_", "_recursive_"})


def made(node: Any, key: str, *, call: bool = True) -> Any:  # noqa: ANN401 - what `_target_` names
    """The object that a node's `_target_` names, or with `call=False` a partial of it.

    Raises:
        UsageError: it cannot be made; names the node by its `key`.
    """
    if not isinstance(node, DictConfig) or not node.get("_target_"):
        raise UsageError(
            f"{key} does not say what to make",
            where=f"{key}._target_",
            next_step="name a class: _target_: my_module.MyClass",
        )
    arguments = OmegaConf.to_container(node, resolve=True)
    _refuse_code(arguments, key)
    target = str(node["_target_"])
    named = {str(name): value for name, value in arguments.items() if name != "_target_"}  # type: ignore[union-attr] # a dictionary
    try:
        # Hydra finds it, if it lets it be called at all; the arguments are plain values by now.
        found = instantiate({"_target_": target, "_partial_": True}).func
        return found(**named) if call else partial(found, **named)
    except Exception as exc:
        raise _refusal(exc, target, key) from exc


def _refusal(exc: Exception, target: str, key: str) -> RunnerError:
    """The error that names the node."""
    cause = exc.__cause__ if isinstance(exc, InstantiationException) else exc
    if isinstance(cause, RunnerError):
        return located(cause, key)
    if key == "machines.cluster.dask" and _is_missing(target):
        return UsageError(
            f"{target} is not installed",
            where=key,
            next_step="pip install 'rtfleet[cluster]', on every computer; or machines/cluster=none",
        )
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    what = next(iter(str(cause or exc).splitlines()), "")
    return UsageError(
        f"{target} cannot be made: {type(cause or exc).__name__}: {what}",
        where=key,
        next_step="check the name in _target_ (is its module on PYTHONPATH?) and the arguments beside it",
    )


def _is_missing(target: str) -> bool:
    return importlib.util.find_spec(target.partition(".")[0]) is None


def _refuse_code(value: Any, key: str) -> None:  # noqa: ANN401 - plain values, all references resolved
    """Code is named where the config says what to make, and nowhere below that: there a `_target_` is a mistake, or a trick."""
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        parts = [(f"{key}.{name}", one) for name, one in value.items() if name != "_target_"]
    elif isinstance(value, list):
        parts = [(f"{key}[{place}]", one) for place, one in enumerate(value)]
    for name, one in parts:
        if name.rpartition(".")[2] in _HYDRA_KEYS or (isinstance(one, dict) and "_target_" in one):
            what = name if name.rpartition(".")[2] in _HYDRA_KEYS else f"{name}._target_"
            raise UsageError(
                f"{what} would have code executed inside of {key}",
                where=what,
                next_step="only tasksets, monitors, session and cluster.dask name a class: make the rest in there, from values",
            )
        _refuse_code(one, name)


def located(error: RunnerError, key: str) -> RunnerError:
    """The same error, with the full name of its key."""
    where = error.where if error.where.startswith(key) else f"{key}.{error.where}".rstrip(".")
    relative = error.where != where and error.what.startswith(f"{error.where} ")
    what = f"{key}.{error.what}" if relative else error.what
    next_step = error.next_step or f"python -m runner --cfg job --package {key} shows what is set"
    return type(error)(what, where=where, next_step=next_step, evidence=error.evidence)
