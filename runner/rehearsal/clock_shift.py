"""A clock of the computer that jumps, for one process and its children alone: a small library that is loaded before all others."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_COMPILE_TIMEOUT_S = 60.0
#: The variable that names the file with the shift, in nanoseconds, as 64 bits of this computer.
VARIABLE = "RTFLEET_CLOCK_SHIFT"
_SHIFT = struct.Struct("=q")
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift_ns;

__attribute__((constructor)) static void find_shift(void)
{
    const char *path = getenv("RTFLEET_CLOCK_SHIFT");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd >= 0 ? mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (page != MAP_FAILED)
        shift_ns = page;
    if (fd >= 0)
        close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);

    if (!failed && shift_ns && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = now->tv_nsec + *shift_ns % 1000000000;

        now->tv_sec += *shift_ns / 1000000000 + (ns >= 1000000000) - (ns < 0);
        now->tv_nsec = ns + (ns < 0) * 1000000000 - (ns >= 1000000000) * 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);

    (void)zone;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *kept)
{
    struct timespec precise;

    clock_gettime(CLOCK_REALTIME, &precise);
    if (kept)
        *kept = precise.tv_sec;
    return precise.tv_sec;
}
"""


def can_be_built() -> bool:
    """Whether there is a compiler."""
    return shutil.which("gcc") is not None


def build(folder: Path) -> Path:
    """The library, made in that folder.

    Raises:
        OSError, subprocess.SubprocessError: there is no compiler, or it refuses.
    """
    library = folder / "clock_shift.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-xc", "-", "-o", str(library)]
    subprocess.run(
        command, input=_SOURCE, text=True, check=True, capture_output=True, timeout=_COMPILE_TIMEOUT_S
    )
    return library


def shift(path: Path, by_ns: int) -> None:
    """Make the clock jump, for all who were told of this file."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(_SHIFT.pack(by_ns))
