"""The task loader, built for this computer once a session, and a program for it to run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.task_loader.client import TaskLoader, make


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("taskloader") / "taskloader")


@pytest.fixture(scope="session")
def request_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("request_check") / "request_check")


@pytest.fixture(scope="session")
def genode_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("genode_check") / "genode_check")


@pytest.fixture
def loader(binary: Path) -> Iterator[TaskLoader]:
    with TaskLoader(binary) as loader:
        yield loader


@pytest.fixture
def realtime() -> None:
    """Skips where this computer lets nobody have a real-time priority."""
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            except OSError:
                os._exit(1)
            os._exit(0)
        allowed = os.waitpid(pid, 0)[1] == 0
    except OSError:
        allowed = False
    if not allowed or not os.access("/proc/sys/kernel/sched_rt_runtime_us", os.W_OK):
        pytest.skip("no real-time priorities here")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that does what its first argument says."""
    folder = tmp_path_factory.mktemp("pro gram")  # a blank in the path must survive
    source = folder / "program.c"
    source.write_text(
        "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
        "int main(int argc, char **argv) {\n"
        '    if (argc > 1 && !strcmp(argv[1], "hang")) for (;;) pause();\n'
        '    if (argc > 1 && !strcmp(argv[1], "crash")) abort();\n'
        '    if (argc > 1 && !strcmp(argv[1], "greedy")) return malloc(64 << 20) ? 0 : 22;\n'
        '    if (argc > 1 && !strcmp(argv[1], "daemon") && fork() == 0) { setsid(); for (;;) pause(); }\n'
        '    if (argc > 1 && !strcmp(argv[1], "child") && fork() == 0) for (;;) pause();\n'
        "    return argc > 2 ? atoi(argv[2]) : 0;\n}\n"
    )
    subprocess.run(["gcc", "-O1", "-static", "-o", folder / "program", source], check=True, timeout=60)
    return folder / "program"
