"""Standard output that nobody reads: the command says so, its data set is complete, and it ends when it is told to."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from runner.exit_codes import ExitCode
from tests.cli import environment
from tests.fleet_samples import eventually

#: Reaching it is a hang.
PATIENCE_S = 120.0
#: The command line with less patience than it has.
SCRIPT = """
import sys
from runner.cli import main
from runner.monitors import dispatcher, listener
listener.STUCK_S, dispatcher.STALL_S = 1.0, 2.0
sys.exit(main())
"""
# Each set is told in two lines; a pipe holds 64 KiB.
ARGUMENTS = (
    "hydra.run.dir=run",
    "machines=simulation",
    "machines.count=2",
    "monitors=[stdout,sqlite]",
    "tasksets.sets_per_utilization=2000",
)


def test_a_pipe_that_nobody_reads_holds_the_run_and_does_not_outlive_it(tmp_path: Path) -> None:
    status = tmp_path / "run" / "status.json"
    log = tmp_path / "run" / "distributor.log"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *ARGUMENTS],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(
                lambda: log.exists() and "monitor StdoutMonitor is stuck in __taskset" in log.read_text(),
                PATIENCE_S,
            )

            def held_and_idle() -> bool:
                state = json.loads(status.read_text())
                stuck = "monitor StdoutMonitor is stuck" in (state["held"] or "")
                return stuck and state["tasksets"]["running"] == 0

            eventually(held_and_idle, PATIENCE_S)
            state = json.loads(status.read_text())
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == ExitCode.HOST
        finally:
            process.kill()
        assert process.stderr is not None
        words = process.stderr.read()
    assert "error: monitor StdoutMonitor has been in __taskset" in words
    assert "look at what the monitor waits for" in words
    assert words.count("held, no further task set is started") == 1
    with closing(sqlite3.connect(tmp_path / "run" / "results.sqlite")) as database:
        ((n,),) = database.execute("SELECT count(*) FROM tasksets WHERE state = 'done'")
    assert 0 < n == state["tasksets"]["done"] < 10_000
    assert (tmp_path / "run" / "parquet" / "jobs.parquet").exists()
