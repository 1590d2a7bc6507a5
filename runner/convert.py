"""Convert task sets from one format to another: `python -m runner.convert IN OUT`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from runner.errors import RunnerError, UsageError
from runner.exit_codes import ExitCode, exit_code_of
from runner.formats.document import located_in
from runner.formats.export import export
from runner.formats.jobs import Options
from runner.formats.kinds import FORMATS, Format, format_of_file, format_of_name, named
from runner.formats.native_schema import schema_text
from runner.formats.notes import Note, refuse_losses
from runner.formats.source import options_of
from runner.model import TaskSet

_MAX_SHOWN = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code: 0 where everything asked for was written."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.schema:
            sys.stdout.write(schema_text())
            return ExitCode.OK
        if options.source is None or options.target is None:
            raise UsageError("two files are needed", next_step="python -m runner.convert IN OUT")
        n_sets, notes = _convert(options)
    except RunnerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exit_code_of(exc)
    for note in notes[:_MAX_SHOWN]:
        print(note, file=sys.stderr)
    if len(notes) > _MAX_SHOWN:
        print(f"… and {len(notes) - _MAX_SHOWN} more", file=sys.stderr)
    print(f"{n_sets} task set{'s' * (n_sets != 1)} → {options.target}")
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    formats = "\n".join(f"  {name:<10} {form.title}" for name, form in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="python -m runner.convert",
        description="Convert task sets from one format to another. What the other format cannot carry is listed, and refused"
        " unless --lossy; what cannot be imported is an error that names its place.",
        epilog=f"formats:\n{formats}\n\ndocs/formats.md says what maps to what. Exit codes: 0 written, 2 refused, 4 a file cannot be"
        " read or written.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?", type=Path, metavar="IN", help="a file of task sets")
    parser.add_argument("target", nargs="?", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--from", dest="read_as", metavar="FORMAT", choices=FORMATS, help="of IN; else by suffix and content"
    )
    parser.add_argument(
        "--to", dest="write_as", metavar="FORMAT", choices=FORMATS, help="of OUT; else by suffix"
    )
    parser.add_argument("--unit", default="us", help="what SchedCAT's numbers count: ns, us (default), ms, s")
    parser.add_argument(
        "--duration", help="how long sets run, where IN does not say so (10s); else one hyperperiod"
    )
    parser.add_argument(
        "--set", dest="number", type=int, metavar="N", help="only the set at this place, from 0"
    )
    parser.add_argument(
        "--lossy", action="store_true", help="convert also what is lost on the way; it is listed all the same"
    )
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of rtfleet's JSON, and end"
    )
    return parser


def _convert(options: argparse.Namespace) -> tuple[int, list[Note]]:
    source, target = options.source, options.target
    added = options_of(options.unit, options.duration, "--unit", "--duration")
    with located_in(source):
        reader = named(options.read_as or format_of_file(source, "--from"), "--from")
    writer = named(options.write_as or format_of_name(target, "--to"), "--to")
    if options.number is not None and options.number < 0:
        raise UsageError(f"--set is {options.number}", where="--set", next_step="count from 0")
    reading = _Reading(reader, source, added, options.number, lossy=options.lossy)
    lost = export(reading.tasksets, writer, target, added, lossy=options.lossy)
    return reading.n_sets, reading.notes + lost


class _Reading:
    """The sets of the file, which can be gone through again; what was noted the first time."""

    def __init__(
        self, form: Format, path: Path, options: Options, number: int | None, *, lossy: bool
    ) -> None:
        self._form = form
        self._path = path
        self._options = options
        self._number = number
        self._lossy = lossy
        self.n_sets = 0
        self.notes: list[Note] = []

    def tasksets(self) -> Iterator[TaskSet]:
        """The sets.

        Raises:
            UsageError: there is none, or something in the file has no place in them.
        """
        self.n_sets, self.notes = 0, []
        first = self._number or 0
        for found in islice(
            self._form.read(self._path, self._options), first, None if self._number is None else first + 1
        ):
            if not self._lossy:
                refuse_losses(found.notes, str(self._path), "convert without it: --lossy")
            self.n_sets += 1
            self.notes += found.notes[: _MAX_SHOWN + 1 - len(self.notes)]
            yield found.taskset
        if self.n_sets == 0:
            what = (
                "the file has no task set"
                if self._number is None
                else f"the file has no task set {self._number}"
            )
            raise UsageError(what, where=str(self._path), next_step="sets are counted from 0")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # … --schema | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
