"""Where things lie in the mailbox, and how much of them there can be."""

from __future__ import annotations

import mmap
from struct import Struct

from runner.errors import UsageError
from runner.events import ExitType
from runner.model import Task

VERSION = 1
PAGE_BYTES = 4096
MIN_REGION_BYTES = 1 << 20
MAX_FILES = 64
MAX_REPLY_BYTES = 1 << 16
UPLOAD_FOLDER = "/run/workloads"

HOST_MAGIC = b"RTFHOST\0"
HOST_AT = 0x000
#: magic, version, n_files, sequence, region_bytes, request_bytes, request_crc32, header_crc32
HOST = Struct("<8sIIQQQII")
GUEST_MAGIC = b"RTFGUEST"
GUEST_AT = 0x080
#: magic, version, state, sequence, reply_offset, reply_bytes, reply_crc32, n_tasks, table_crc32, header_crc32
GUEST = Struct("<8sIIQQQIIII")
READY, ANSWERED = 1, 2
FILE_TABLE_AT = 0x400
#: name, offset, bytes, crc32, zero
FILE = Struct("<QQQII")
TASK_TABLE_AT = 0xC00
#: offset of the first record, n_records
SEGMENT = Struct("<QQ")
REQUEST_AT = 0x1000
#: release_ns, start_ns, finish_ns, exec_ns, job, code, preemptions, migrations, cpu_first, cpu_last, exit, task
RECORD = Struct("<4q4i4h")
UNKNOWN = -1
#: In the order of `enum exit_type` of the task loader.
EXIT_TYPES = (
    ExitType.EXIT,
    ExitType.EXIT_CRITICAL,
    ExitType.EXIT_PERIOD,
    ExitType.EXIT_DEADLINE,
    ExitType.EXIT_EXTERNAL,
    ExitType.EXIT_ERROR,
    ExitType.OUT_OF_QUOTA,
    ExitType.NOT_SCHEDULED,
    ExitType.SKIPPED,
)
CRC_BYTES = 4  # each header ends with its own

Region = bytearray | memoryview | mmap.mmap


def check_size(view: memoryview) -> None:
    """Refuse a region that can be no mailbox with a `UsageError`: the host has made it."""
    if view.nbytes < MIN_REGION_BYTES or view.nbytes & (view.nbytes - 1):
        raise UsageError(
            f"a mailbox of {view.nbytes} bytes: it has a power of two, and at least {MIN_REGION_BYTES}"
        )


def max_records(task: Task, end_ns: int) -> int:
    """How many records a task can have: its releases before the end of the set, and one in any case, for its refusal."""
    if task.period_ns is None:
        return 1
    n_before_end = (end_ns - task.offset_ns - 1) // task.period_ns + 1
    return max(1, min(task.n_jobs, n_before_end))


def page_ceil(n_bytes: int) -> int:
    return -(-n_bytes // PAGE_BYTES) * PAGE_BYTES
