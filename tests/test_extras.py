"""The extras of pyproject.toml: each is pinned, installed here, and used by a test; what `pip install .[extra]` asks for is in the lock."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import runner
from runner.errors import HostError
from tests.cli import ROOT, RUN_TIMEOUT_S

#: Extra -> what it is for, as a test does it: a file, and words that stand in it.
USED = {
    "pandas": ("tests/test_data_readers.py", '.pandas("features")'),
    "polars": ("tests/test_data_readers.py", '.polars("runs")'),
    "postgresql": ("tests/test_monitor_stores.py", "PostgreSQLMonitor"),
    "mongodb": ("tests/test_monitor_stores.py", "MongoDBMonitor"),
    "cluster": ("tests/test_cluster.py", "machines/cluster=local"),
    "joblib": ("tests/test_cli_sweep.py", "hydra/launcher=joblib"),
    "sweeps": ("tests/test_cli_sweep.py", "submitit_local"),
    "arrays": ("tests/test_compiled.py", "make_many"),
    "slurm": ("tests/test_extras.py", "dask_jobqueue.SLURMCluster"),
    "convolutionalfixedsum": ("tests/test_random_tasksets.py", "convolutionalfixedsum"),
    "peers": ("tests/simso_responses.py", "simso.core"),
    "notebook": ("tests/test_notebook_kernel.py", "NotebookClient"),
    "learn": ("tests/test_examples.py", "learn("),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINNED = {
    canonicalize_name(name): pin
    for name, _, pin in (
        line.partition("==")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if not line.startswith("#")
    )
}


def asked_by(requirements: list[str]) -> Iterator[Requirement]:
    """What is asked for on this Python, extras of our own by what is in them."""
    for one in map(Requirement, requirements):
        if one.marker is not None and not one.marker.evaluate():
            continue
        if one.name == PROJECT["name"]:
            for extra in one.extras:
                yield from asked_by(EXTRAS[extra])
        else:
            yield one


def test_each_extra_is_used_by_a_test() -> None:
    assert set(USED) == set(EXTRAS) - {"dev"}
    for extra, (path, words) in USED.items():
        assert words in (ROOT / path).read_text(), f"{extra}: {path} has no {words}"
    assert {
        name for one in map(Requirement, EXTRAS["dev"]) if one.name == PROJECT["name"] for name in one.extras
    } == set(USED)


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_each_is_pinned_and_installed_as_pinned(extra: str) -> None:
    for one in asked_by(EXTRAS[extra] if extra else PROJECT["dependencies"]):
        pin = PINNED[canonicalize_name(one.name)]
        assert one.specifier.contains(pin, prereleases=True), f"{one}: {pin} is pinned"
        assert version(one.name) == pin, f"{one.name} is not installed as it is pinned: make check"


def test_whatever_they_ask_for_is_in_the_lock() -> None:
    """pip resolves all extras with nothing but what is pinned: it has everything, and looks for nothing."""
    extras = ",".join(sorted(USED))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-build-isolation",
         "--disable-pip-version-check", "--constraint", "requirements.lock", "--editable", f".[{extras}]"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^Would install (.*)$", done.stdout, re.MULTILINE)
    assert line.startswith(PROJECT["name"])
    assert " " not in line, f"not in the lock: {line}"


def test_a_host_that_cannot_be_reached_over_ssh_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncssh, which the extra `cluster` brings beside Dask, is what tries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(HostError, match=r"Connect call failed \('127.0.0.1', 1\)"):
        runner.start(
            "machines=simulation",
            "machines/cluster=ssh",
            "machines.cluster.dask.hosts=[127.0.0.1,127.0.0.1]",
            "+machines.cluster.dask.connect_options={port: 1, known_hosts: null}",
        )


def test_the_job_that_slurm_would_be_given(tmp_path: Path) -> None:
    """As the config asks for it."""
    program = (
        "import dask_jobqueue, sys, yaml\n"
        "arguments = yaml.safe_load(open(sys.argv[1]))['dask']\n"
        "for name in ('_target_', 'n_jobs', 'log_directory'):\n"
        "    arguments.pop(name, None)\n"
        "with dask_jobqueue.SLURMCluster(**arguments, interface='lo') as cluster:\n"
        "    print(cluster.job_script())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "conf" / "machines" / "cluster" / "slurm.yaml")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    for line in ("#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G", "#SBATCH -t 01:00:00"):
        assert line in done.stdout
    assert "distributed.cli.dask_worker tcp://127.0.0.1:" in done.stdout
