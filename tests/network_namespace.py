"""A network of the test's own: a namespace that no other program of the computer is in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cli import ROOT

_TIMEOUT_S = 120.0


def why_none() -> str:
    """Why this computer lets a test have no namespace with a bridge; empty if it does."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [
        one for one in ("ip", "dnsmasq") if shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin") is None
    ]
    if missing:
        return f"{', '.join(missing)} missing: python -m host_setup packages --bridge"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    name = f"rtfleet-{uuid.uuid4().hex[:8]}"
    if _ip("netns", "add", name).returncode != 0:
        return "this container may not make network namespaces"
    made = _ip("-netns", name, "link", "add", "name", "br0", "type", "bridge")
    _ip("netns", "delete", name)
    return made.stderr.strip()


@dataclass(frozen=True)
class Namespace:
    """A network namespace.

    Attributes:
        name: As `ip netns` has it.
        folder: The test's own.
    """

    name: str
    folder: Path

    @property
    def within(self) -> Sequence[str]:
        """The words that come before a command, to run it in here."""
        return ("ip", "netns", "exec", self.name)

    @property
    def runtime(self) -> Path:
        """Where the network's record and the DHCP server's files are."""
        return self.folder / "runtime"

    @property
    def env(self) -> dict[str, str]:
        """What programs are told of the test's folder."""
        return {"RTFLEET_RUNTIME": str(self.runtime)}

    def ip(self, *words: str) -> str:
        """`ip` in here, which must succeed; its output."""
        done = _ip("-netns", self.name, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command in here, to its end."""
        return subprocess.run(
            [*self.within, *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.env, **variables},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def network(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`python -m host_setup network` in here."""
        return self.run(sys.executable, "-m", "host_setup", "network", *words)

    def interfaces(self, *, with_carrier: bool = False) -> set[str]:
        """The names of what is here beside the loopback."""
        rows = json.loads(self.ip("-json", "link", "show"))
        return {row["ifname"] for row in rows if not with_carrier or "LOWER_UP" in row["flags"]} - {"lo"}

    def pids(self) -> list[int]:
        """The processes in here."""
        return [int(pid) for pid in _ip("netns", "pids", self.name).stdout.split()]


@contextmanager
def new_namespace(folder: Path) -> Iterator[Namespace]:
    """Make one; at the end it is gone with all that is in it, whatever happened."""
    here = Namespace(f"rtfleet-{uuid.uuid4().hex[:8]}", folder)
    assert _ip("netns", "add", here.name).returncode == 0
    try:
        here.ip("link", "set", "dev", "lo", "up")
        yield here
    finally:
        for pid in here.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _ip("netns", "delete", here.name)


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
