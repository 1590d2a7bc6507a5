"""The JSON Schema of our own format, made from the model: `docs/taskset.schema.json` is what `python -m runner.convert --schema` prints."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from runner.formats.native import FORMAT, VERSION
from runner.model import MAX_TASKS, WORKLOADS, Provenance, Task, TaskSet
from runner.model.refusal import MAX_NAME_CHARS
from runner.model.task import MAX_CPUS
from runner.tasksets.priorities import Priorities

_QUANTITY = r"^\s*\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*"
_TIME = {"type": "string", "pattern": _QUANTITY + r"(ns|us|µs|ms|s|min)\s*$", "examples": ["10ms", "28.5ms"]}
_SIZE = {
    "type": "string",
    "pattern": _QUANTITY + r"(B|K|KiB|M|MiB|G|GiB|kB|MB|GB)\s*$",
    "examples": ["100MiB"],
}
_WHOLE = {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}
_TEXTS = {"type": "array", "items": {"type": "string"}}
#: Argument of a workload -> its values.
_ARGUMENTS: dict[str, Any] = {"arg1": _WHOLE, "path": {"type": "string"}, "argv": _TEXTS, "cpu_ns": _WHOLE}


def schema() -> dict[str, Any]:
    """The schema of a whole file; `$defs/taskset` is that of one line of JSON Lines."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rtfleet task sets",
        "description": "Times and sizes are texts with a unit; under a key that names the unit (period_ns), whole numbers."
        " A list of values stands for several task sets, one for every combination. docs/formats.md says more.",
        "type": "object",
        "properties": {
            "format": {"const": FORMAT},
            "version": {"const": VERSION},
            "tasksets": {"type": "array", "items": {"$ref": "#/$defs/taskset"}},
        },
        "required": ["format", "version", "tasksets"],
        "additionalProperties": False,
        "$defs": {"taskset": _taskset(), "task": _task(), "provenance": _provenance()},
    }


def schema_text() -> str:
    """As it is published."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _taskset() -> dict[str, Any]:
    special = {
        "tasks": {"type": "array", "minItems": 1, "maxItems": MAX_TASKS, "items": {"$ref": "#/$defs/task"}},
        "provenance": {"$ref": "#/$defs/provenance"},
        "priority": {
            "enum": [one.value for one in Priorities],
            "description": "Where ranks come from; left out: explicit if any task has a priority_rank, otherwise rm.",
        },
    }
    properties = {**_properties(TaskSet, skipped={"tasks", "choices", "provenance"}), **special}
    return _object(properties, required=["tasks"])


def _task() -> dict[str, Any]:
    names = sorted({name for arguments in WORKLOADS.values() for name in arguments})
    arguments = {name: _several(_ARGUMENTS[name]) for name in names}
    arguments["cpu"] = _several(_TIME)
    special = {
        "workload": _several({"enum": list(WORKLOADS)}),
        "workload_args": _object(arguments),
        "cpu_affinity": _several(
            {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_CPUS - 1}}
        ),
    }
    plain = _properties(Task, skipped=set(special))
    return _object({**{name: _several(value) for name, value in plain.items()}, **special})


def _provenance() -> dict[str, Any]:
    properties = {
        "generator": {"type": "string"},
        "params": {"type": "object"},
        "seed": {"type": "integer"},
        "utilization_target": {"type": "number"},
    }
    assert properties.keys() == {one.name for one in fields(Provenance)}  # noqa: S101 - or it would be lost
    return _object(properties)


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    more = {"required": required} if required else {}
    return {"type": "object", "properties": properties, **more, "additionalProperties": False}


def _several(value: dict[str, Any]) -> dict[str, Any]:
    """A value, or a list of values, or (a key without a value) null, which is as if it were left out."""
    return {"anyOf": [value, {"type": "array", "minItems": 1, "items": value}, {"type": "null"}]}


def _properties(model: type, *, skipped: set[str]) -> dict[str, Any]:
    """The fields of a class of the model, each by its type; a time or size with its unit, and as a whole number."""
    found: dict[str, Any] = {}
    hints = get_type_hints(model)
    for one in fields(model):
        if one.name in skipped:
            continue
        unitless = one.name.removesuffix("_ns").removesuffix("_bytes")
        if unitless != one.name:
            found[unitless] = _TIME if one.name.endswith("_ns") else _SIZE
        value = _of_type(hints[one.name])
        if one.default not in (MISSING, None) and not isinstance(one.default, tuple):
            value = {**value, "default": one.default}
        found[one.name] = value
    return found


def _of_type(hint: Any) -> dict[str, Any]:  # noqa: ANN401 - a type
    if get_origin(hint) is UnionType:
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    if hint is bool:
        return {"type": "boolean"}
    if hint is int:
        return _WHOLE
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [one.value for one in hint]}
    assert hint is str, f"{hint} has no JSON Schema here"  # noqa: S101 - a new kind of field has to be told of
    return {"type": "string", "maxLength": MAX_NAME_CHARS}
