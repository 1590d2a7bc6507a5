"""A real disk that is small: a memory file system in a mount namespace of its own, which nobody has to clean up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cli import environment


@dataclass(frozen=True)
class SmallDisk:
    """The disk is at `folder` for the processes that `command` starts, and at `seen` for everybody else."""

    folder: Path
    seen: Path
    _enter: tuple[str, ...]

    def start(self, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """A process whose working folder is on the disk."""
        inside = ("sh", "-c", 'cd "$0" && exec "$@"', str(self.folder))
        return subprocess.Popen(
            [*self._enter, *inside, *command],
            env=environment(self.folder, env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def free_bytes(self) -> int:
        disk = os.statvfs(self.seen)
        return disk.f_bavail * disk.f_frsize

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all room but so much of it; what others write at the same time gets none either."""
        with (self.seen / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while (n_bytes := min(1 << 20, self.free_bytes - leave_bytes)) > 0:
                file.write(bytes(n_bytes))

    def make_room(self) -> None:
        (self.seen / "ballast").unlink()


@contextmanager
def small_disk(folder: Path, *, size_mib: int, inodes: int = 0) -> Iterator[SmallDisk]:
    """Mount one over `folder`, as root or, without any privilege, as root of a user namespace."""
    own_root = () if os.geteuid() == 0 else ("--map-root-user",)
    options = f"size={size_mib}m" + (f",nr_inodes={inodes}" if inodes else "")
    script = f'mount -t tmpfs -o {options} none "$0" && echo ready && cat'
    with subprocess.Popen(
        ["unshare", *own_root, "--mount", "sh", "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", "no small file system can be mounted here"
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        enter = ("nsenter", "--target", str(holder.pid), *user, "--mount")
        try:
            yield SmallDisk(folder, Path(f"/proc/{holder.pid}/root{folder}"), enter)
        finally:
            holder.communicate()  # the end of its input is its own
