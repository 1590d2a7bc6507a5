"""A real PostgreSQL server of Debian's package, on a Unix socket in a temporary folder, as an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

USER = "postgres"  # Debian's package makes it


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "PostgreSQL is not installed: python -m host_setup packages --tests"
    return found[-1].parent


class Server:
    """One server and its data; `start()` and `stop()` as often as wanted, `remove()` at the end."""

    def __init__(self) -> None:
        # Not pytest's folder: the server's user may not enter that, and a socket's name must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="rtfleet-pg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._user = USER if os.geteuid() == 0 else None
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._run("initdb", "--auth=trust", "--username=tester", "--no-sync", "--encoding=UTF8", "--locale=C")

    @property
    def url(self) -> str:
        return f"postgresql://tester:hidden-word@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        # fsync costs a busy disk seconds, and no test loses power.
        options = (
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={self.folder}",
            "-c",
            "fsync=off",
        )
        self._process = subprocess.Popen(
            [str(_programs() / "postgres"), "-D", self.folder / "data", *options],
            user=self._user,
            extra_groups=[] if self._user else None,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._run("pg_ctl", "status", wait_for=True)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: immediate shutdown
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        shutil.rmtree(self.folder)

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """What a client of its own sees."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()

    def _run(self, program: str, *words: str, wait_for: bool = False) -> None:
        if wait_for:
            # `pg_isready --timeout` waits for one answer only; psql is refused until the server is up.
            ready = [str(_programs() / "pg_isready"), "--quiet", f"--host={self.folder}"]
            while subprocess.run(ready, check=False).returncode:
                assert self._process is not None
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.05)
                    raise AssertionError("the server ended")
            return
        subprocess.run(
            [str(_programs() / program), "-D", str(self.folder / "data"), *words],
            user=self._user,
            extra_groups=[] if self._user else None,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
