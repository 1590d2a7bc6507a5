"""The command line for somebody who is a program: errors go to it as they are, not to the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from runner import cli
from runner.campaign import Campaign
from runner.config.machines import MAX_MACHINES
from runner.config.masking import Masking
from runner.errors import RunnerError
from runner.exit_codes import ExitCode, exit_code_of
from runner.notebook.messages import Placed, error_line, placed_line


def run_attended(arguments: Sequence[str], tell: Callable[[bytes], None]) -> int:
    """As the command line, but for what it tells: where the run is before it begins, and any error in full; the exit code."""

    class Attended(Campaign):
        """Tells where it is, and how it fails."""

        def run(self, config: DictConfig, folder: Path) -> ExitCode:
            """The run."""
            machines = config.machines
            tell(placed_line(Placed(folder, machines.limit if not machines.cluster.dask else MAX_MACHINES)))
            return super().run(config, folder)

        @staticmethod
        def show(error: RunnerError, masking: Masking) -> ExitCode:
            """Tell an error, without its secrets, and what the command is to end with."""
            hidden = type(error)(
                masking.mask(error.what),
                where=masking.mask(error.where),
                next_step=masking.mask(error.next_step),
                evidence=masking.mask(error.evidence),
                log_path=error.log_path,
            )
            tell(error_line(hidden))
            return exit_code_of(error)

    return cli.main(arguments, Attended)
