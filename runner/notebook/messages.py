"""What a run in a process of its own tells whoever has started it, a line of JSON each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runner import errors
from runner.errors import RunnerError


@dataclass(frozen=True)
class Placed:
    """Where the run is, and how many machines it may have."""

    folder: Path
    limit: int


def placed_line(placed: Placed) -> bytes:
    """That it has a run folder."""
    return _line({"folder": str(placed.folder), "limit": placed.limit})


def error_line(error: RunnerError) -> bytes:
    """That it ends with an error; the secrets are out of it."""
    fields = {name: getattr(error, name) for name in ("what", "where", "next_step", "evidence")}
    log_path = None if error.log_path is None else str(error.log_path)
    return _line({"error": type(error).__name__, "log_path": log_path, **fields})


def read_line(line: bytes) -> Placed | RunnerError:
    """What was told."""
    content = json.loads(line)
    if "folder" in content:
        return Placed(Path(content["folder"]), content["limit"])
    log_path = None if content["log_path"] is None else Path(content["log_path"])
    kind = getattr(errors, content["error"], RunnerError)
    return kind(
        content["what"],
        where=content["where"],
        next_step=content["next_step"],
        evidence=content["evidence"],
        log_path=log_path,
    )


def _line(content: dict[str, object]) -> bytes:
    return json.dumps(content).encode() + b"\n"
