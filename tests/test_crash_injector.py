"""The crash injector: what it lets happen, what it undoes, and that it finds what is not safe."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.injector import Crash, Mode, Report, compiled, preload

POWER = [Mode.POWER, Mode.POWER_NAMES, Mode.POWER_SOME]


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("shim"))


class Program:
    """A Python program under the injector, in a folder of its own."""

    def __init__(self, shim: Path, folder: Path, source: str) -> None:
        self.shim, self.folder, self.source = shim, folder, source

    def run(self, crash: Crash) -> Report:
        """With the folder as its working folder, and empty at the start."""
        subprocess.run(["rm", "-rf", str(self.folder), f"{self.folder}.graveyard"], check=True)
        self.folder.mkdir()
        reading, writing = os.pipe()
        with open(reading, encoding="ascii") as report:
            done = subprocess.run(
                [sys.executable, "-c", self.source],
                cwd=self.folder,
                env={**os.environ, **preload(self.shim, crash, self.folder, writing)},
                pass_fds=(writing,),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            os.close(writing)
            found = Report.parse(report.read())
        assert done.returncode == (0 if found.kind is None else -signal.SIGKILL), done.stderr
        return found

    def files(self) -> dict[str, str]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_text() for path in paths}


@pytest.fixture
def program(shim, tmp_path):
    return lambda source: Program(shim, tmp_path / "run", source)


REPLACE = """
import os
with open("new", "w", buffering=1) as file:
    file.write("first\\n")
    SYNC
os.replace("new", "file")
FOLDER
with open("file", "a", buffering=1) as file:
    file.write("second\\n")
os.mkdir("late")
"""
SYNC = "os.fsync(file.fileno())"
FOLDER = "os.fsync(os.open('.', os.O_RDONLY))"


def test_every_operation_is_counted_and_can_be_the_last(program):
    replacing = program(REPLACE.replace("SYNC", SYNC).replace("FOLDER", FOLDER))
    counted = replacing.run(Crash(0))
    assert counted.n == 8
    kinds = {kind: n for kind, n in counted.by_kind.items() if n}
    assert kinds == {"open": 2, "write": 2, "sync": 2, "rename": 1, "mkdir": 1}
    ends = [replacing.run(Crash(at)) for at in range(1, counted.n + 1)]
    assert [(end.n, end.kind, end.path) for end in ends] == [
        (1, "open", "new"),
        (2, "write", "new"),
        (3, "sync", "new"),
        (4, "rename", "file"),
        (5, "sync", ""),
        (6, "open", "file"),
        (7, "write", "file"),
        (8, "mkdir", "late"),
    ]
    assert replacing.files() == {"file": "first\nsecond\n"}
    assert not (replacing.folder / "late").exists()
    assert replacing.run(Crash(9)).kind is None


def test_torn_write_is_done_by_half(program):
    writing = program(REPLACE.replace("SYNC", "").replace("FOLDER", ""))
    assert writing.run(Crash(2, Mode.TORN)) == Report(2, "write", "file")
    assert writing.files() == {"file": "first\nsec"}
    assert writing.run(Crash(0, Mode.TORN)).n == 2


@pytest.mark.parametrize(
    ("mode", "sync", "folder", "left"),
    [
        (Mode.KILL, "", "", {"file": "first\nsecond\n"}),
        (Mode.POWER, "", "", {}),
        (Mode.POWER, SYNC, "", {}),
        (Mode.POWER, SYNC, FOLDER, {"file": "first\n"}),
        (Mode.POWER, "", FOLDER, {"file": ""}),
        (Mode.POWER_NAMES, "", "", {"file": ""}),
        (Mode.POWER_NAMES, SYNC, "", {"file": "first\n"}),
    ],
)
def test_power_loss_undoes_what_was_not_synced(program, mode, sync, folder, left):
    replacing = program(REPLACE.replace("SYNC", sync).replace("FOLDER", folder))
    n = replacing.run(Crash(0)).n
    assert replacing.run(Crash(n, mode)).kind == "mkdir"
    assert replacing.files() == left


def test_power_loss_brings_back_what_was_replaced_removed_and_overwritten(program):
    changing = program("""
import os
for name in ("replaced", "removed", "overwritten", "cut", "emptied"):
    with open(name, "w") as file:
        file.write(f"{name} as it was")
        file.flush()
        os.fsync(file.fileno())
os.mkdir("folder")
os.fsync(os.open(".", os.O_RDONLY))
open("new", "w").write("new")
os.replace("new", "replaced")
os.unlink("removed")
with open("overwritten", "r+") as file:
    file.write("OVERWRITTEN AND LONGER THAN BEFORE")
os.truncate("cut", 3)
open("emptied", "w").close()
os.rmdir("folder")
os.mkdir("end")
""")
    n = changing.run(Crash(0)).n
    before = {name: f"{name} as it was" for name in ("cut", "emptied", "overwritten", "removed", "replaced")}
    assert changing.run(Crash(n, Mode.POWER)).path == "end"
    assert changing.files() == before
    assert (changing.folder / "folder").is_dir()
    assert changing.run(Crash(n, Mode.POWER_NAMES)).path == "end"
    del before["removed"]
    assert changing.files() == {**before, "replaced": ""}


def test_power_loss_may_keep_any_sector(program):
    """Each seed is another outcome; the same seed the same."""
    writing = program("""
import os
file = open("file", "w")
file.write("a" * 2048)
file.flush()
os.fsync(file.fileno())
os.fsync(os.open(".", os.O_RDONLY))
file.seek(0)
file.write("b" * 4096)
file.flush()
os.mkdir("end")
""")
    n = writing.run(Crash(0)).n
    found = {}
    for seed in range(8):
        writing.run(Crash(n, Mode.POWER_SOME, seed))
        found[seed] = writing.files()["file"]
        assert len(found[seed]) in (2048, 4096)
        sectors = [found[seed][start : start + 512] for start in range(0, len(found[seed]), 512)]
        assert {sector[0] for sector in sectors[:4]} <= {"a", "b"}
        assert {sector[0] for sector in sectors[4:]} <= {"\0", "b"}
        assert all(len(set(sector)) == 1 for sector in sectors)
    assert len(set(found.values())) > 4
    writing.run(Crash(n, Mode.POWER_SOME, 3))
    assert writing.files()["file"] == found[3]


def test_a_rename_is_lost_as_a_whole_or_not_at_all(program):
    """A journal may end before it or after it: the name is never without a file."""
    replacing = program("""
import os
for name in ("old", "new"):
    with open(name, "w") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
os.fsync(os.open(".", os.O_RDONLY))
os.replace("new", "old")
os.mkdir("end")
""")
    n = replacing.run(Crash(0)).n
    found = []
    for seed in range(12):
        replacing.run(Crash(n, Mode.POWER_SOME, seed))
        found.append(replacing.files())
    assert {tuple(sorted(files.items())) for files in found} == {
        (("new", "new"), ("old", "old")),
        (("old", "new"),),
    }


def test_only_the_armed_process_counts(program):
    """Programs that it starts are not touched, nor do they find what made it so."""
    starting = program("""
import os, subprocess, sys
assert "LD_PRELOAD" not in os.environ
code = "import os; open('theirs', 'w').write('x'); assert not [k for k in os.environ if 'CRASH' in k or 'PRELOAD' in k]"
subprocess.run([sys.executable, "-c", code], check=True)
pid = os.fork()
if not pid:
    open("child's", "w").write("x")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
open("ours", "w").close()
""")
    assert starting.run(Crash(0)).n == 1
    assert starting.run(Crash(1)) == Report(1, "open", "ours")


COMMITS = """
import sqlite3
database = sqlite3.connect("db", isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = LEVEL")
database.execute("PRAGMA wal_autocheckpoint = 4")
database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
for n in range(5):
    database.execute("INSERT INTO t VALUES (?, ?)", (n, str(n) * 3000))
    with open("told", "a", buffering=1) as file:
        print(n, file=file)
        import os
        os.fsync(file.fileno())
        os.fsync(os.open(".", os.O_RDONLY))
"""


def survivors(folder: Path) -> int:
    """Rows of a sound database: all from the first on, none in parts."""
    if not (folder / "db").exists():
        return 0
    with closing(sqlite3.connect(folder / "db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not database.execute("SELECT 1 FROM sqlite_schema").fetchall():
            return 0
        rows = database.execute("SELECT n, text FROM t ORDER BY n").fetchall()
    assert rows == [(n, str(n) * 3000) for n in range(len(rows))]
    return len(rows)


def told(folder: Path) -> int:
    path = folder / "told"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("mode", list(Mode))
def test_sqlite_survives_when_it_syncs_fully(program, mode):
    """Whatever was told to be committed is there after any crash."""
    committing = program(COMMITS.replace("LEVEL", "FULL"))
    n = committing.run(Crash(0, mode)).n
    for at in range(1, n + 1, 7):
        report = committing.run(Crash(at, mode, seed=at))
        assert report.kind is not None
        n_told, n_found = told(committing.folder), survivors(committing.folder)
        assert n_told <= n_found <= n_told + 1, report


@pytest.mark.parametrize("mode", POWER)
def test_the_injector_finds_what_is_not_synced_fully(program, mode):
    """It would be of no use otherwise."""
    committing = program(COMMITS.replace("LEVEL", "NORMAL"))
    lost = 0
    for at in range(12, committing.run(Crash(0, mode)).n, 7):
        committing.run(Crash(at, mode, seed=at))
        lost += told(committing.folder) > survivors(committing.folder)
    assert lost
