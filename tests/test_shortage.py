"""Python's own errors that mean that there is too little of something, told from bugs."""

from __future__ import annotations

import errno
import os

import pytest

from runner.errors import HostShortage
from runner.shortage import as_shortage


@pytest.mark.parametrize(
    "number", [errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN]
)
def test_what_the_kernel_may_grant_later_is_a_shortage(number: int) -> None:
    cause = OSError(number, os.strerror(number), "/run")
    error = as_shortage(cause)
    assert isinstance(error, HostShortage)
    assert os.strerror(number) in error.what
    assert "/run" in error.what
    assert error.__cause__ is cause


def test_memory_and_threads_are_what_one_can_be_short_of() -> None:
    assert isinstance(as_shortage(MemoryError()), HostShortage)
    error = as_shortage(RuntimeError("can't start new thread"))
    assert isinstance(error, HostShortage)
    assert "ulimit -u" in error.what


@pytest.mark.parametrize(
    "bug", [OSError(errno.ENOENT, "gone"), RuntimeError("dictionary changed size"), KeyError("x")]
)
def test_everything_else_stays_what_it_is(bug: Exception) -> None:
    assert as_shortage(bug) is bug
