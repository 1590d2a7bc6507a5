"""What holds for all tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

# A busy computer is slow now and then; that is no finding about the code. Speed has its own programs, under benchmarks/.
settings.register_profile("developer", deadline=None)
# A change is judged by the same examples each time; developers' runs keep looking for new ones.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Reports go to another process as UTF-8, and what a test has logged may be none: file names are any bytes."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(one) for key, one in value.items()}
        case list() | tuple():
            return [_encodable(one) for one in value]
    return value


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    """Whatever a test starts, it ends: a thread that outlives its test would hold the whole process up."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(timeout=5.0)
    assert not [thread.name for thread in left if thread.is_alive()]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test."""
    for name in ("HYDRA_FULL_ERROR", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
