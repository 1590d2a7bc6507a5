"""What `network create` has made, so that `network remove` undoes that and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from runner.errors import HostError


class Kind(StrEnum):
    """What can be made; in the order in which it is undone."""

    #: An interface that was there was added to the bridge.
    PORT = "port"
    #: An interface was switched on.
    UP = "up"
    TAP = "tap"
    #: The bridge, which was there, was given an address.
    ADDRESS = "address"
    BRIDGE = "bridge"


@dataclass(frozen=True)
class Made:
    """One thing that was made, or was about to be.

    Attributes:
        name: The interface's.
        index: The interface's number; None if it is not known whether it was made.
        value: An address, or the bridge of a port.
    """

    kind: Kind
    name: str
    index: int | None = None
    value: str = ""


def runtime_root() -> Path:
    """The folder of what lasts until the computer is switched off: `$RTFLEET_RUNTIME`, else `/run/rtfleet`."""
    return Path(os.environ.get("RTFLEET_RUNTIME") or "/run/rtfleet")


class NetworkRecord:
    """What was made for one bridge; kept in a file, as are the DHCP server's own.

    Attributes:
        folder: Of these files. Interfaces do not outlive a restart of the computer, and neither does the folder.
    """

    def __init__(self, bridge: str) -> None:
        self.folder = runtime_root() / "network" / bridge
        self._path = self.folder / "made.json"

    @property
    def made(self) -> tuple[Made, ...]:
        """What was made, first things first.

        Raises:
            HostError: the record cannot be read.
        """
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))
            return tuple(Made(Kind(row["kind"]), row["name"], row["index"], row["value"]) for row in rows)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise HostError(
                f"what was made for the bridge cannot be told any more: {exc}",
                where=str(self._path),
                next_step="delete the interfaces yourself (ip link delete NAME), and that folder",
            ) from exc

    def store(self, made: tuple[Made, ...]) -> None:
        """Replace the record.

        Raises:
            HostError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps([asdict(one) for one in made]) + "\n", encoding="utf-8")
            part.replace(self._path)
        except OSError as exc:
            raise _unusable(exc, self.folder) from exc

    @property
    def deleting(self) -> tuple[tuple[str, ...], ...]:
        """Commands that delete the folder and all that is in it, and those above it if nothing else is in them."""
        above = (str(self.folder.parent), str(self.folder.parent.parent))
        return ("rm", "-r", str(self.folder)), ("rmdir", "--ignore-fail-on-non-empty", *above)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While nobody else makes or removes this network.

        Raises:
            HostError: somebody does, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise _unusable(exc, self.folder) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as exc:
            raise HostError(
                "another `host_setup network` is at work on this bridge", next_step="let it end first"
            ) from exc
        finally:
            os.close(fd)


def _unusable(exc: OSError, folder: Path) -> HostError:
    return HostError.because(
        exc,
        "the folder for what belongs to the network cannot be written",
        where=str(folder),
        next_step="run this as root, or set RTFLEET_RUNTIME to another folder",
    )
