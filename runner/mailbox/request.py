"""The host's side of the mailbox that writes: a task set and its executables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from zlib import crc32

from runner.errors import TaskSetError
from runner.mailbox.layout import (
    CRC_BYTES,
    FILE,
    FILE_TABLE_AT,
    GUEST,
    GUEST_AT,
    HOST,
    HOST_AT,
    HOST_MAGIC,
    MAX_REPLY_BYTES,
    RECORD,
    REQUEST_AT,
    UPLOAD_FOLDER,
    VERSION,
    Region,
    check_size,
    max_records,
    page_ceil,
)
from runner.model import TaskSet
from runner.task_loader import wire


def write_request(region: Region, taskset: TaskSet, *, sequence: int, files: Mapping[str, bytes]) -> None:
    """Put a task set into the mailbox, and take away the last answer: until the guest gives one, there is none.

    Args:
        sequence: 1 for the first request to a guest, then one more each time.
        files: Path on this computer -> content, for every executable of the set.

    Raises:
        TaskSetError: when the request, or the table of the jobs that it may yield, does not fit into the region; nothing is
            written then. Or when the task loader would not take it.
    """
    paths = {str(task.workload_args["path"]) for task in taskset.tasks if task.workload == "executable"}
    names = {path: hashlib.sha256(files[path]).digest()[:8] for path in sorted(paths)}
    text = wire.encode(
        taskset, uploads={path: f"{UPLOAD_FOLDER}/{name.hex()}" for path, name in names.items()}
    )
    contents = {name: files[path] for path, name in names.items()}
    with memoryview(region) as view:
        check_size(view)
        _check_capacity(taskset, len(text), list(contents.values()), len(view))
        view[GUEST_AT : GUEST_AT + GUEST.size] = bytes(GUEST.size)
        view[REQUEST_AT : REQUEST_AT + len(text)] = text
        table, end = b"", REQUEST_AT + len(text)
        for name, content in contents.items():
            offset = page_ceil(end)
            end = offset + len(content)
            view[offset:end] = content
            table += FILE.pack(int.from_bytes(name, "big"), offset, len(content), crc32(content), 0)
        view[FILE_TABLE_AT : FILE_TABLE_AT + len(table)] = table
        facts = (HOST_MAGIC, VERSION, len(contents), sequence, len(view), len(text), crc32(text))
        checked = HOST.pack(*facts, 0)[:-CRC_BYTES] + table
        view[HOST_AT : HOST_AT + HOST.size] = HOST.pack(*facts, crc32(checked))


def _check_capacity(taskset: TaskSet, text_bytes: int, contents: Iterable[bytes], region_bytes: int) -> None:
    """Refuse what the guest would refuse: request, files, each task's records, and a reply of any length."""
    asked = page_ceil(REQUEST_AT + text_bytes) + sum(page_ceil(len(content)) for content in contents)
    n_records = [max_records(task, taskset.end_ns) for task in taskset.tasks]
    needed = asked + sum(page_ceil(n * RECORD.size) for n in n_records) + MAX_REPLY_BYTES
    if needed > region_bytes:
        raise TaskSetError(
            f"task set {taskset.name!r} ({taskset.taskset_id}) needs {_mib_ceil(needed)} MiB of mailbox, {_mib_ceil(asked)} MiB for"
            f" the request and the rest for at most {sum(n_records)} jobs; there are {_mib_ceil(region_bytes)} MiB",
            next_step="make machines.qemu.mailbox_mib larger, ask for fewer jobs (n_jobs, stop_ns), or run the set over SSH",
        )


def _mib_ceil(n_bytes: int) -> int:
    return -(-n_bytes // (1 << 20))
