"""How long a sweep takes to begin its first run, beside Hydra's own launcher: `python -m benchmarks.sweep`.

Hydra's basic launcher carries out as many jobs that do nothing, of a program with no config at all. Ours validates every run of
a sweep over simulated machines before the first begins; it is timed to the moment at which that has a run folder, and then ended.
Both are processes of their own, one after the other, and each is timed from its start.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.program import run_program
from benchmarks.report import Goal, print_goals, print_heading

#: Ours may take at most this fraction of Hydra's time.
GOAL = 1 / 10
_PATIENCE_S = 600.0
_NO_OP = """
import hydra

@hydra.main(config_path=None, version_base="1.3")
def nothing(config):
    pass

nothing()
"""


def time_hydra(folder: Path, n_jobs: int) -> float:
    """Seconds that Hydra's basic launcher takes for jobs that do nothing."""
    program = folder / "no_op.py"
    program.write_text(_NO_OP)
    began_s = time.monotonic()
    subprocess.run(
        [sys.executable, str(program), "--multirun", f"+number=range({n_jobs})"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=_PATIENCE_S,
    )
    return time.monotonic() - began_s


def time_start(folder: Path, n_runs: int) -> float:
    """Seconds until the first of our runs begins."""
    began_s = time.monotonic()
    with _sweep(folder, n_runs) as process:
        first = folder / "sweep" / "0" / "manifest.json"
        while not first.exists():
            if process.poll() is not None or time.monotonic() - began_s > _PATIENCE_S:
                raise SystemExit("the sweep has not begun")
            time.sleep(0.002)
        took_s = time.monotonic() - began_s
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=_PATIENCE_S)
    return took_s


def time_whole(folder: Path, n_runs: int) -> float:
    """Seconds for all of our runs, each of one simulated task set."""
    began_s = time.monotonic()
    with _sweep(folder, n_runs) as process:
        if process.wait(timeout=_PATIENCE_S):
            raise SystemExit(f"the sweep ended with {process.returncode}")
    return time.monotonic() - began_s


def _sweep(folder: Path, n_runs: int) -> subprocess.Popen[bytes]:
    tiny = ("tasksets.utilizations=[0.5]", "tasksets.sets_per_utilization=1", "tasksets.hyperperiods=1")
    quiet = ("monitors=[logging,sqlite]", "monitors.sqlite.parquet=null", "report=false")
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "runner", "--multirun", "hydra.sweep.dir=sweep", "machines=simulation"),
            *(*tiny, *quiet, f"tasksets.seed=range({n_runs})"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main() -> int:
    """Print the figures; 0 if the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, metavar="N", help="runs of the sweep (default: 300)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which medians are taken")
    parser.add_argument("--whole", action="store_true", help="also time the whole sweep of ours, once")
    arguments = parser.parse_args()
    print_heading(f"a sweep of {arguments.runs}")
    hydras_s, ours_s = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(arguments.rounds):
            folder = Path(temporary, str(number))
            folder.mkdir()
            hydras_s.append(time_hydra(folder, arguments.runs))
            ours_s.append(time_start(folder, arguments.runs))
        hydra_s, our_s = statistics.median(hydras_s), statistics.median(ours_s)
        print(f"Hydra's basic launcher, {arguments.runs} jobs that do nothing: {hydra_s:7.2f} s")
        print(f"ours, until the first run begins:               {our_s:7.2f} s")
        one = Path(temporary, "one")
        one.mkdir()
        print(f"  of which a sweep of one run takes:            {time_start(one, 1):7.2f} s")
        if arguments.whole:
            whole = Path(temporary, "whole")
            whole.mkdir()
            print(
                f"ours, {arguments.runs} runs of one simulated set, data and all:  {time_whole(whole, arguments.runs):7.2f} s"
            )
    return 0 if print_goals([Goal("start of ours / whole of Hydra's", our_s / hydra_s, GOAL)]) else 1


if __name__ == "__main__":
    run_program(main)
