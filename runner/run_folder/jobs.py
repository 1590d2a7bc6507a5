"""What the jobs of a sweep, each a process of its own, tell the command that waits for them, and it them: by files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from runner.exit_codes import ExitCode
from runner.files.durable import replace_text
from runner.paths import RunPaths


class JobFiles:
    """A folder in that of the sweep, for as long as jobs run; any process that sees the file system may use it.

    Args:
        folder: The sweep's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = RunPaths(folder).jobs
        self._n_read: dict[Path, int] = {}

    def open(self) -> None:
        """Begin with none."""
        self.close()
        self._folder.mkdir()

    def close(self) -> None:
        """Remove it all."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # The waiting command

    def stop(self) -> None:
        """No further job is to begin."""
        (self._folder / "stop").touch()

    def began(self, number: int) -> bool:
        """Whether a job is at work, or was."""
        return self._path(number, "err").exists()

    def code(self, number: int) -> ExitCode | None:
        """What a job has ended with; None: it has not."""
        try:
            return ExitCode(int(self._path(number, "code").read_text(encoding="ascii")))
        except FileNotFoundError:
            return None

    def new_lines(self, number: int, stream: str) -> list[str]:
        """What a job has printed to `out` or `err` since the last call, in whole lines."""
        path = self._path(number, stream)
        try:
            with path.open("rb") as file:
                file.seek(self._n_read.get(path, 0))
                text = file.read()
        except FileNotFoundError:
            return []
        whole, newline, _ = text.rpartition(b"\n")
        self._n_read[path] = self._n_read.get(path, 0) + len(whole) + len(newline)
        return whole.decode(errors="replace").splitlines()

    # The job

    @property
    def stopped(self) -> bool:
        """Whether no further job is to begin, or nobody waits for any."""
        return not self._folder.is_dir() or (self._folder / "stop").exists()

    @contextmanager
    def printing(self, number: int) -> Iterator[None]:
        """What is printed inside of the block goes to the waiting command."""
        with (
            self._path(number, "out").open("w", encoding="utf-8", buffering=1) as out,
            self._path(number, "err").open("w", encoding="utf-8", buffering=1) as err,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            yield

    def ended(self, number: int, code: ExitCode) -> None:
        """A job's last word."""
        replace_text(self._path(number, "code"), str(int(code)))

    def _path(self, number: int, kind: str) -> Path:
        return self._folder / f"{number}.{kind}"
