"""What was run, where and with what, from `manifest.json` and the stored config; secrets in them stay masked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runner.files.durable import read_json, read_start
from runner.paths import RunPaths
from runner.text.excerpt import printable
from runner.text.log_lines import clean
from runner.text.secrets import masked, masked_values

_CONFIG_BYTES = 1 << 16
_MAX_ROWS = 120


@dataclass(frozen=True)
class Provenance:
    """Facts by their names, and the composed config as it is stored; empty where nothing is known."""

    facts: tuple[tuple[str, str], ...]
    config: str

    def fact(self, name: str) -> str | None:
        """One of them."""
        return dict(self.facts).get(name)


def read_provenance(paths: RunPaths) -> Provenance:
    """As far as the files can be read; whatever is wrong with them is said in their place."""
    try:
        manifest = masked_values(read_json(paths.manifest))
        facts = tuple((name, clean(text)) for name, text in _leaves(manifest, ""))[:_MAX_ROWS]
    except (OSError, ValueError) as exc:
        facts = (("manifest.json", f"cannot be read: {type(exc).__name__}"),)
    try:
        text = read_start(paths.record / "config.yaml", _CONFIG_BYTES + 1).decode("utf-8", "replace")
    except OSError:
        text = ""
    cut = f"{text[:_CONFIG_BYTES]}\n…" if len(text) > _CONFIG_BYTES else text
    return Provenance(facts, printable(masked(cut)))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON
    match value:
        case dict():
            for key, one in value.items():
                yield from _leaves(one, f"{name}.{key}" if name else str(key))
        case list() if all(isinstance(one, str | int | float) for one in value):
            yield name, " ".join(map(str, value)) or "none"
        case list():
            for number, one in enumerate(value):
                yield from _leaves(one, f"{name}[{number}]")
        case None:
            pass
        case _:
            yield name, str(value)
