"""Our own format: JSON with a unit at every time, several sets a file; or JSON Lines, one set a line, of any number.

Guarantees: every concrete task set comes back equal, with its provenance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.errors import UsageError
from runner.formats.document import located_in, open_regular, parse_document, whole_file
from runner.formats.jobs import Options
from runner.formats.notes import FoundSet
from runner.model import Provenance, TaskSet
from runner.tasksets.explicit import ExplicitTaskSets, write_down
from runner.tasksets.written import mapping, nearest, sequence, text, whole
from runner.text.excerpt import excerpt
from runner.units import written_bytes, written_ns

FORMAT = "rtfleet-tasksets"
VERSION = 1
MAX_LINE_BYTES = 1 << 20


def written(taskset: TaskSet) -> dict[str, Any]:
    """A concrete task set as JSON values: as `runner.tasksets.explicit` reads it, with units, and its provenance."""
    plain = write_down(taskset)
    tasks = [with_units(task) for task in plain.pop("tasks")]
    content = {**with_units(plain), "tasks": tasks}
    origin = taskset.provenance
    if origin != Provenance():
        told = {
            "generator": origin.generator,
            "params": dict(origin.params),
            "seed": origin.seed,
            "utilization_target": origin.utilization_target,
        }
        content["provenance"] = {key: value for key, value in told.items() if value not in (None, {})}
    return content


def with_units(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with `period: 10ms` for `period_ns: 10000000`, down to the arguments of workloads; what is not known is left out."""
    told: dict[str, Any] = {}
    for key, value in values.items():
        match value:
            case None:
                continue
            case int() if key.endswith("_ns"):
                told[key.removesuffix("_ns")] = written_ns(value)
            case int() if key.endswith("_bytes"):
                told[key.removesuffix("_bytes")] = written_bytes(value)
            case Mapping():
                told[key] = with_units(value)
            case _:
                told[key] = value
    return told


def read_value(item: object, key: str) -> Iterator[TaskSet]:
    """The task sets that one JSON object stands for: several where a task's attribute has a list of values.

    Raises:
        UsageError: as `ExplicitTaskSets`, and for a provenance that is none.
    """
    given = dict(mapping(item, key))
    origin = _provenance(given.pop("provenance", None), f"{key}.provenance")
    for variant in ExplicitTaskSets([given], key=key).variants():
        yield replace(variant, provenance=origin)


def _provenance(item: object, key: str) -> Provenance:
    if item is None:
        return Provenance()
    given = dict(mapping(item, key))
    known = ("generator", "params", "seed", "utilization_target")
    for name in given:
        if name not in known:
            raise UsageError(
                f"{key}.{name} is not known", where=f"{key}.{name}", next_step=nearest(name, known)
            )
    target, seed = given.get("utilization_target"), given.get("seed")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
        at = f"{key}.utilization_target"
        raise UsageError(f"{at} is {excerpt(target)}, not a number", where=at)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise UsageError(f"{key}.seed is {excerpt(seed)}, not a whole number", where=f"{key}.seed")
    return Provenance(
        generator=text(given.get("generator", "explicit"), f"{key}.generator"),
        params=mapping(given.get("params", {}), f"{key}.params"),
        seed=seed,
        utilization_target=target if target is None else float(target),
    )


def read_json(path: Path, _: Options) -> Iterator[FoundSet]:
    """The sets of a JSON file."""
    with located_in(path):
        document = mapping(parse_document(whole_file(path)), "the file")
        kind, version = document.get("format"), document.get("version")
        if kind != FORMAT:
            raise UsageError(
                f'format is {excerpt(kind)}, not "{FORMAT}"',
                where="format",
                next_step="name the format that the file has (--from, or tasksets.format)",
            )
        if whole(version, "version") != VERSION:
            raise UsageError(
                f"version is {excerpt(version)}; this program knows {VERSION}",
                where="version",
                next_step="use the rtfleet that wrote the file, or a newer one",
            )
        for name in document:
            if name not in ("format", "version", "tasksets"):
                raise UsageError(f"{name} is not known", where=name, next_step=nearest(name, ["tasksets"]))
        for idx, item in enumerate(sequence(document.get("tasksets"), "tasksets")):
            yield from map(FoundSet, read_value(item, f"tasksets[{idx}]"))


def write_json(tasksets: Iterable[TaskSet], path: Path, _: Options) -> None:
    """All sets, a line each."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"format": "{FORMAT}", "version": {VERSION}, "tasksets": [\n')
        for idx, taskset in enumerate(tasksets):
            file.write((",\n" if idx else "") + _line(taskset))
        file.write("\n]}\n")


def read_lines(path: Path, _: Options) -> Iterator[FoundSet]:
    """The sets of a JSON Lines file, one after the other: at no time is there more than one line in memory."""
    with located_in(path), open(open_regular(path), "rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise UsageError(
                    f"line {number} has more than {MAX_LINE_BYTES >> 20} MiB", where=f"line {number}"
                )
            with _at_line(number):
                sets = list(read_value(parse_document(line.rstrip(b"\r\n")), "the set"))
                if len(sets) != 1:
                    raise UsageError(
                        f"the line stands for {len(sets)} task sets, and a line is one",
                        next_step="write one line per set, or lists of values in a JSON file (.json)",
                    )
            yield FoundSet(sets[0])


@contextmanager
def _at_line(number: int) -> Iterator[None]:
    try:
        yield
    except UsageError as exc:
        inside = exc.where.removeprefix("line 1, ")
        where = f"line {number}, {inside}" if inside else f"line {number}"
        raise UsageError(exc.what, where=where, next_step=exc.next_step) from exc


def count_lines(path: Path) -> int:
    """How many sets a JSON Lines file holds, without reading them."""
    n_lines, last = 0, b"\n"
    with located_in(path), open(open_regular(path), "rb") as file:
        while block := file.read(1 << 20):
            n_lines += block.count(b"\n")
            last = block[-1:]
    return n_lines + (last != b"\n")


def write_lines(tasksets: Iterable[TaskSet], path: Path, _: Options) -> None:
    """All sets, a line each."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{_line(taskset)}\n" for taskset in tasksets)


def _line(taskset: TaskSet) -> str:
    try:
        return json.dumps(written(taskset), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise UsageError(
            f"task set {taskset.name!r}: its provenance is no JSON: {exc}",
            next_step="use texts, numbers, lists and mappings as parameters of the generator",
        ) from None
