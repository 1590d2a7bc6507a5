"""Whether a fleet on workers that come and go measures what one computer does: real guests, real worker processes.

    python -m benchmarks.cluster_proof [--sets 200] [--machines arm64]

A scheduler and three workers of Dask's are started, and a run on them: `machines.count=1`, then 6, then 2, by its control file. Meanwhile
one worker is killed, and another one joins. The same sets are then measured without a cluster. Prints what is lost and doubled (nothing,
or the exit code is 1), and the SHA-256 of the tables, which have to be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.program import run_program
from runner.data.reading import load

#: What has to be the same, whoever measured it.
TABLES = ("tasksets", "tasks", "jobs", "events")
LIMIT_S = 1800.0
_LOOK_S = 0.2
_END_S = 20.0


@contextmanager
def process(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A module of Python's while it runs, its output in a file; ended at the end of the block."""
    with (folder / f"{time.monotonic_ns()}.log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log, cwd=Path.cwd())
    try:
        yield child
    finally:
        for end in (child.terminate, child.kill):
            if child.poll() is None:
                end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_END_S)


class Cluster:
    """A scheduler of Dask's and its workers, each a process of its own, which takes up to `guests` machines."""

    def __init__(self, stack: ExitStack, folder: Path, *, guests: int = 4) -> None:
        self._stack = stack
        self._folder = folder
        self._guests = guests
        self._file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        until(self._file.exists, "the scheduler is up")

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return str(json.loads(self._file.read_text())["address"])

    def add_worker(self) -> None:
        """One more."""
        resources = f"guests={self._guests}"
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--resources", resources)
        self.workers.append(
            self._start("worker", *options, "--local-directory", str(self._folder / "scratch"))
        )

    def kill_worker(self) -> int:
        """Kill the first one; its process id."""
        worker = self.workers.pop(0)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        return worker.pid

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        own = ("dask", *arguments, "--scheduler-file", str(self._file))
        return self._stack.enter_context(process(*own, folder=self._folder))


@dataclass
class RunFolder:
    """What a run says of itself while it goes on."""

    path: Path

    def status(self) -> dict[str, Any]:
        """`status.json`; empty before there is one."""
        file = self.path / "status.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    @property
    def n_done(self) -> int:
        """Sets measured so far."""
        return int(self.status().get("tasksets", {}).get("done", 0))

    @property
    def machines(self) -> dict[str, Any]:
        """Those that there are, by name."""
        return dict(self.status().get("observed", {}).get("by_machine", {}))

    def rescale(self, n_machines: int) -> None:
        """As an operator does it."""
        (self.path / "control.yaml").write_text(f"machines: {n_machines}\nstate: run\n", encoding="utf-8")

    def digests(self) -> dict[str, str]:
        """SHA-256 of the Parquet file of each table; their rows have an order that does not depend on who measured when."""
        return {
            name: hashlib.sha256((self.path / "parquet" / f"{name}.parquet").read_bytes()).hexdigest()
            for name in TABLES
        }

    def account(self) -> dict[str, object]:
        """How often sets were measured, and by whom."""
        data = load(self.path).tables
        runs, ledger = data["runs"].to_pylist(), data["ledger"].to_pylist()
        places = [(row["set_idx"], row["repetition"]) for row in ledger if row["state"] == "done"]
        by_worker: dict[str, int] = {}
        for row in runs:
            worker = str(json.loads(row["facts_json"]).get("worker"))
            by_worker[worker] = by_worker.get(worker, 0) + 1
        return {
            "done": len(set(places)),
            "doubled": len(runs) - len({(row["taskset_id"], row["repetition"]) for row in runs}),
            "attempts": len(runs),
            "by_worker": by_worker,
        }


def until(reached: Callable[[], object], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Look until it is so.

    Raises:
        TimeoutError: it is not within the limit.
    """
    end_s = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(_LOOK_S)


def eventful(n_sets: int, options: tuple[str, ...], folder: Path) -> RunFolder:
    """A run in the course of which a worker is killed, one is added, and the fleet goes from one machine to 6 to 2."""
    run = RunFolder(folder / "cluster")
    with ExitStack() as stack:
        cluster = Cluster(stack, folder)
        for _ in range(3):
            cluster.add_worker()
        at = ("machines/cluster=scheduler", f"machines.cluster.dask.address={cluster.address}")
        more = (*options, *at, "machines.count=1", f"hydra.run.dir={run.path}")
        program = stack.enter_context(process("runner", *more, folder=folder))

        def wait_for(reached: Callable[[], bool], what: str) -> None:
            def there() -> bool:
                if program.poll() is not None:
                    raise RuntimeError(f"the run has ended (exit code {program.returncode}) before {what}")
                return reached()

            until(there, what)

        def done(n_done: int) -> None:
            wait_for(lambda: run.n_done >= n_done, f"{n_done} sets are done")

        done(n_sets // 8)
        run.rescale(6)
        wait_for(lambda: len(run.machines) == 6, "there are 6 machines")
        print(f"{run.n_done} done: rescaled to 6, on {workers_of(run)}", flush=True)
        done(n_sets // 4)
        cluster.add_worker()  # its start takes a while
        print(f"{run.n_done} done: worker {cluster.kill_worker()} killed", flush=True)
        wait_for(lambda: len(workers_of(run)) == 3, "three workers have machines")
        print(f"{run.n_done} done: one joined, machines on {workers_of(run)}", flush=True)
        done(n_sets // 2)
        run.rescale(2)
        wait_for(lambda: len(run.machines) == 2, "there are 2 machines")
        print(f"{run.n_done} done: rescaled to 2, on {workers_of(run)}", flush=True)
        code = program.wait(LIMIT_S)
    if code:
        raise RuntimeError(f"the run on the cluster has ended with exit code {code}")
    return run


def workers_of(run: RunFolder) -> list[str]:
    """Those that have machines."""
    return sorted({name.rpartition(".")[0] for name in run.machines})


def quiet(n_sets: int, options: tuple[str, ...], folder: Path) -> RunFolder:
    """The same without a cluster."""
    run = RunFolder(folder / "alone")
    with process(
        "runner", *options, "machines.count=2", f"hydra.run.dir={run.path}", folder=folder
    ) as program:
        code = program.wait(LIMIT_S)
    if code:
        raise RuntimeError(f"the run on one computer has ended with exit code {code}")
    return run


def options_of(n_sets: int, machines: str) -> tuple[str, ...]:
    """What both runs measure."""
    return (
        f"machines={machines}",
        "tasksets.n_tasks=3",
        "tasksets.utilizations=[0.7]",
        "tasksets.periods=[20ms,40ms,80ms]",
        f"tasksets.sets_per_utilization={n_sets}",
        "tasksets.seed=3",
        "monitors=[logging,sqlite]",
        "report=false",
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--machines", default="arm64", help="of the group machines")
    args = parser.parse_args()
    options = options_of(args.sets, args.machines)
    with tempfile.TemporaryDirectory() as name:
        began_s = time.monotonic()
        on_cluster = eventful(args.sets, options, Path(name))
        cluster_s = time.monotonic() - began_s
        alone = quiet(args.sets, options, Path(name))
        account = on_cluster.account()
        print(f"cluster: {account}, {cluster_s:.0f} s; one computer: {alone.account()}")
        same = True
        for table, digest in on_cluster.digests().items():
            equal = alone.digests()[table] == digest
            same = same and equal
            print(f"{table}.parquet {digest} {'equal' if equal else 'DIFFERENT'}")
    whole = account["done"] == args.sets and not account["doubled"]
    return 0 if same and whole else 1


if __name__ == "__main__":
    run_program(main)
