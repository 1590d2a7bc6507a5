"""Whether a run can go on where it stopped: what has changed since it began. Pure, but for the manifest's file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.errors import UsageError
from runner.exit_codes import ExitCode
from runner.files.durable import read_json
from runner.text.excerpt import excerpt
from runner.text.secrets import masked

#: The override that has a run resumed in spite of changes.
ACCEPT = "changes=accept"
_MAX_SHOWN = 8
_MAX_VALUE_CHARS = 60
_ABSENT = "(not there)"
#: Facts of a manifest that decide what is measured, and what they are called in a message.
_FACTS = {
    "rtfleet": ("packages", "rtfleet"),
    "simulator": ("simulator",),
    "guest image": ("guest", "image_sha256"),
    "guest kernel": ("guest", "kernel_release"),
    "QEMU": ("guest", "qemu"),
    "tasksets.seed": ("seed",),
    "machines.reset": ("guest", "settings", "reset"),
}

#: Where the config has the settings of hosts that are no guests of ours.
_SECTIONS = {"genode_pbxa9": "genode", "genode_board": "board"}

Changes = dict[str, tuple[Any, Any]]


def config_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Full name of each key whose value differs -> the values; a key that is missing on one side is `(not there)`.

    References are compared as they are written: what they lead to shows in the facts, or in the task sets themselves.
    """
    old, new = _flat(before), _flat(now)
    keys = [*old, *(key for key in new if key not in old)]
    pairs = {key: (old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if not _same(a, b)}


def fact_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """What differs between two manifests and decides what is measured: program, simulator, image, emulator, guest."""
    places = dict(_FACTS)
    for manifest in (before, now):
        settings = _at(manifest, ("guest", "settings"))
        section = _SECTIONS.get(str(_at(manifest, ("guest", "host"))), "qemu")
        for name in settings if isinstance(settings, Mapping) else ():
            # These lie elsewhere in the config.
            if name != "reset":
                key = "machines.network" if name == "network" else f"machines.{section}.{name}"
                places.setdefault(key, ("guest", "settings", name))
    pairs = {name: (_at(before, place), _at(now, place)) for name, place in places.items()}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


def refuse_changes(folder: Path, changes: Changes) -> None:
    """Raise if there is any.

    Raises:
        UsageError: shows them key by key.
    """
    if not changes:
        return
    shown = [f"{key}: {_shown(a)} → {_shown(b)}" for key, (a, b) in changes.items()]
    more = [f"and {len(shown) - _MAX_SHOWN} more"] if len(shown) > _MAX_SHOWN else []
    lines = "".join(f"\n    {line}" for line in [*shown[:_MAX_SHOWN], *more])
    raise UsageError(
        f"{folder} was begun otherwise, and its results would not belong together:{lines}",
        where=str(folder),
        next_step=f"undo that, or start a new run; {ACCEPT} resumes it all the same, and notes that in manifest.json",
    )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run; None if it has not begun.

    Raises:
        UsageError: it is damaged.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise _damaged(path, str(exc)) from exc
    if not isinstance(content, dict):
        raise _damaged(path, "it is no mapping")
    return content


def complete_code(manifest: Mapping[str, Any] | None) -> ExitCode | None:
    """What a run ended with that has nothing left to do; None for any other."""
    ended = manifest.get("ended") if manifest is not None else None
    code = ended.get("exit_code") if isinstance(ended, Mapping) else None
    return ExitCode(code) if code in (ExitCode.OK, ExitCode.BAD_TASKSETS) else None


def merged(stored: Sequence[str], added: Sequence[str]) -> list[str]:
    """Overrides, and further ones in the place of those with the same key.

    Of two for one value Hydra takes the last, but it refuses two choices of one group.
    """
    later = {one.partition("=")[0]: one for one in added}
    # In the place of the first: the runs of a sweep are numbered by the order of what is swept.
    kept = {one.partition("=")[0]: later.get(one.partition("=")[0], one) for one in stored}
    return [*kept.values(), *(one for key, one in later.items() if key not in kept)]


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is damaged: {why}",
        where=str(path),
        next_step="what was measured can be used all the same: start a new run with reuse=RUN_FOLDER",
    )


def _flat(value: Any, key: str = "") -> dict[str, Any]:  # noqa: ANN401 - plain values
    if isinstance(value, Mapping) and value:
        parts = {f"{key}.{name}" if key else str(name): one for name, one in value.items()}
    elif isinstance(value, list) and value:
        parts = {f"{key}[{place}]": one for place, one in enumerate(value)}
    else:
        return {key: value}
    return {name: leaf for part, one in parts.items() for name, leaf in _flat(one, part).items()}


def _same(one: object, other: object) -> bool:
    """Also of numbers that are no number, or that Python does not write; 1, 1.0 and true are different."""
    return type(one) is type(other) and (one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _at(value: Any, place: Sequence[str]) -> Any:  # noqa: ANN401 - plain values
    for name in place:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(value: object) -> str:
    if value == _ABSENT:
        return _ABSENT
    try:
        text = masked(json.dumps(value, ensure_ascii=False, default=str))
    except ValueError:  # a number beyond what Python writes
        text = excerpt(value)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"
