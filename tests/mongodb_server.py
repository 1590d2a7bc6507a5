"""A server that speaks MongoDB's protocol, and is not ours: BriskDB, which keeps collections in SQLite files. In a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# It ends when its standard input does, so it outlives no test.
_PROGRAM = """
import sys
from briskdb import _briskdb
folder, address = sys.argv[1:]
with _briskdb.Database(folder, shards=2, documents=True) as database:
    with database.serve(admin=None, mongo=address) as server:
        print(server.mongo_address, flush=True)
        sys.stdin.read()
"""


class Server:
    """One server and its data; `start()` and `stop()` as often as wanted, `remove()` at the end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rtfleet-mongo-"))
        self._address = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        # One server that no other follows: it knows no majority.
        return f"mongodb://{self._address}/?w=1&serverSelectionTimeoutMS=1000"

    def start(self) -> None:
        """Start it, and wait until it takes connections; a second time at the same address."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, self.folder / "data", self._address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._address = self._process.stdout.readline().strip()
        assert self._address, "the server did not start"

    def stop(self) -> None:
        """End it; its data stay."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def remove(self) -> None:
        """End it, and remove its data."""
        self.stop()
        shutil.rmtree(self.folder)
