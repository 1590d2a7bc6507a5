"""What decides a measurement: two with equal identities have equal job tables. Pure, but for reading executables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from runner.errors import TaskSetError, UsageError
from runner.model import Task, TaskSet

#: Goes into every identity: raised whenever the same content comes to mean something else.
IDENTITY_VERSION = 1


def measurement_identity(
    taskset: TaskSet,
    settings: Mapping[str, str | int | float | None],
    *,
    files: Mapping[str, str],
    predecessor: str | None = None,
) -> str:
    """32 hex digits that stand for everything that a measurement in a bit-repeatable mode depends on.

    Guarantees: differs whenever the task set's content, a setting, an executable's content or the predecessor does; names,
    provenance, the order of the settings and the places of executables on this computer do not count.

    Args:
        settings: Everything else that the guest can feel: image, QEMU, speed, memory …
        files: Path of each executable workload -> SHA-256 of its content, as `executable_digests` tells.
        predecessor: Identity of the set that the guest ran before this one since its snapshot was restored; None: none.

    Raises:
        UsageError: when `files` lacks an executable of the set, or a setting is not a finite number.
    """
    content = {
        "version": IDENTITY_VERSION,
        "tasks": [_content(task, files) for task in taskset.tasks],
        "overrun_policy": taskset.overrun_policy.value,
        "admission_control": taskset.admission_control,
        "stop_ns": taskset.stop_ns,
        "settings": dict(settings),
        "predecessor": predecessor,
    }
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise UsageError(
            f"the settings of a machine cannot be told apart: {exc}",
            next_step="describe a setting by a text, a finite number, or None",
        ) from exc
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def executable_digests(taskset: TaskSet) -> dict[str, str]:
    """Path of each executable workload of the set -> SHA-256 (64 hex digits) of its content.

    Raises:
        TaskSetError: when one cannot be read.
    """
    digests = {}
    for path in sorted({str(t.workload_args["path"]) for t in taskset.tasks if t.workload == "executable"}):
        try:
            with open(path, "rb") as file:
                digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as exc:  # ValueError: a path with a null byte
            raise TaskSetError(
                f"the workload executable {path} cannot be read: {exc}",
                next_step="correct workload_args.path",
            ) from exc
    return digests


def _content(task: Task, files: Mapping[str, str]) -> dict[str, Any]:
    plain = task.as_dict()
    del plain["name"]
    if task.workload == "executable":
        path = str(task.workload_args["path"])
        if path not in files:
            raise UsageError(
                f"the content of {path} is not known, so neither is what would be measured",
                where="files",
                next_step="pass files=executable_digests(taskset)",
            )
        plain["workload_args"]["path"] = files[path]
    return plain
