"""What `import runner` offers: the names that users know, each of them real, and no others."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from runner import AbstractMonitor, Distributor

INIT = Path(runner.__file__)
#: Known to users of the original interface; they may not go.
ORIGINAL = {
    "AbstractMonitor",
    "Distributor",
    "Hey0TaskSet",
    "LoggingMonitor",
    "Machine",
    "TaskSet",
    "TaskSetQueue",
}


def imported() -> dict[str, str | None]:
    """The names that the package imports from its modules, as type checkers see them, and these modules."""
    return {
        alias.asname or alias.name: node.module
        for block in ast.parse(INIT.read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_list_is_what_there_is() -> None:
    assert sorted(runner.__all__) == sorted(imported())
    assert imported() == runner._HOMES
    assert runner.__all__ == sorted(runner.__all__), "keep the list sorted"


def test_every_name_can_be_had() -> None:
    for name in runner.__all__:
        value = getattr(runner, name)
        assert inspect.getdoc(value), f"{name} has no docstring"
        assert value.__module__.startswith("runner.")


def test_no_other_name_can_be_had() -> None:
    with pytest.raises(AttributeError, match="'runner' has no attribute 'NoSuch'"):
        runner.NoSuch  # type: ignore[attr-defined]  # noqa: B018
    assert "Distributor" in dir(runner)


def test_the_original_names_are_there() -> None:
    assert set(runner.__all__) >= ORIGINAL
    for method in (
        "add_job",
        "set_max_machine_value",
        "get_max_machine_value",
        "get_distributor_state",
        "kill_all_machines",
        "shut_down_all_machines",
        "resume",
    ):
        assert callable(getattr(Distributor, method))
    for method in ("start", "event", "finish", "stop", "bad"):
        assert callable(getattr(AbstractMonitor, f"__taskset_{method}__"))


def test_importing_does_nothing() -> None:
    """No thread, no output, no configured logging, no Hydra: a shell gets a library."""
    program = (
        "import logging, sys, threading, runner\n"
        "assert threading.active_count() == 1\n"
        "assert not logging.getLogger().handlers\n"
        "assert 'hydra' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=INIT.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
