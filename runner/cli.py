"""The command line: what is asked for is composed and carried out, and every error becomes one screen and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from runner.campaign import Campaign, Manner
from runner.config.composer import ConfigComposer, ConfigPlaces, folder_of
from runner.config.errors import explained
from runner.config.files import bound_config_files
from runner.config.masking import Masking
from runner.config.plan import CONF_FOLDER
from runner.config.record import RunRecord, read_record
from runner.config.resuming import ACCEPT, merged
from runner.config.schemas import register_schemas
from runner.errors import UsageError
from runner.exit_codes import ExitCode
from runner.monitors.listener import MonitorThread
from runner.paths import RunPaths
from runner.sweep import Sweep
from runner.sweep_job import SweepJob
from runner.text.secrets import literal_secrets, masked


def main(arguments: Sequence[str] | None = None, campaigns: type[Campaign] = Campaign) -> int:
    """Run what the command line says; returns the exit code. `--multirun` runs several.

    Args:
        campaigns: Carry it out, and say how it ended.
    """
    # What is measured is its user's, as are the sockets of guests and whatever else lies in a run folder.
    os.umask(0o077)
    # Otherwise Hydra prints errors in its own way and ends with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # A log on a full disk: what the run cannot do without tells so itself.
    logging.raiseExceptions = False
    with Masking() as masking:
        try:
            register_schemas()
            bound_config_files()
            code = _carry_out(sys.argv[1:] if arguments is None else list(arguments), masking, campaigns)
        except KeyboardInterrupt:
            print("stopped before anything was measured", file=sys.stderr)
            code = ExitCode.STOPPED
        except Exception as exc:  # noqa: BLE001 - whatever it is, it was raised before a run began
            code = campaigns.show(explained(exc), masking)
    if any(isinstance(thread, MonitorThread) for thread in threading.enumerate()):
        # A monitor that does not come back keeps its thread, and the interpreter would wait for it for ever.
        logging.shutdown()
        os._exit(code)
    return code


@dataclass(frozen=True)
class _Request:
    """What is asked for: overrides, and how much of it an earlier command has said."""

    overrides: list[str]
    resume: Path | None = None
    accepted: bool = False


def _carry_out(arguments: list[str], masking: Masking, campaigns: type[Campaign]) -> int:
    for argument in arguments:
        _refuse_secret(argument)
    options = get_args_parser().parse_args(arguments)
    if options.experimental_rerun is not None:
        raise UsageError(
            "--experimental-rerun would execute what is in a file",
            next_step="python -m runner resume=RUN_FOLDER goes on with a run",
        )
    request = _request(options)
    record = None
    if request.resume is not None:
        record = read_record(request.resume)
        request = _resumed(request, record)
    places = _places(options, record)
    if options.help or options.hydra_help or options.cfg or options.info or options.shell_completion:
        return _ask_hydra(arguments, options, request, places)
    shell_folder = Path.cwd()
    if record is not None:
        _enter(record.working_folder)
    sweep = options.multirun or "hydra.mode=MULTIRUN" in request.overrides
    if request.resume is not None:
        sweep = _is_sweep(request.resume, asked=sweep)
    with ConfigComposer(places) as composer:
        config = composer.compose(request.overrides, sweep=sweep)
        folder = request.resume or folder_of(config, sweep=sweep)
        how = Manner(
            resuming=request.resume is not None, accepted=request.accepted, shell_folder=shell_folder
        )
        campaign = campaigns(composer, masking, how)
        if not sweep:
            return campaign.run(config, folder)
        return Sweep(composer, campaign, masking, SweepJob(places, config, folder, how)).run()


def _refuse_secret(argument: str) -> None:
    """Before anybody parses it, and may quote it in a message or store it."""
    key, _, value = argument.partition("=")
    if masked(argument) == argument and not any(literal_secrets(value, key.lstrip("+~"))):
        return
    name = masked(argument).partition("=")[0]
    raise UsageError(
        f"{name} holds a password or token, which would be written down with the config",
        where="the command line",
        next_step=f"put it into an environment variable, and write '{name}=${{oc.env:NAME}}', in quotes",
    )


def _request(options: Namespace) -> _Request:
    own: dict[str, str] = {}
    overrides = []
    for one in options.overrides:
        key, equals, value = one.partition("=")
        if equals and key in ("resume", "changes"):
            own[key] = value
        else:
            overrides.append(one)
    if own.get("changes", "accept") != "accept":
        raise UsageError(
            f"changes is {own['changes']!r}", where="changes", next_step=f"write {ACCEPT}, or leave it out"
        )
    if "resume" not in own:
        if "changes" in own:
            raise UsageError(
                "changes= goes with resume=", where="changes", next_step="name the run: resume=RUN_FOLDER"
            )
        return _Request(overrides)
    placed = [one for one in overrides if one.startswith(("hydra.run.", "hydra.sweep."))]
    if placed:
        raise UsageError(
            f"resume= says where the run is, and so does {placed[0]}",
            where=placed[0].partition("=")[0],
            next_step="leave one of them out",
        )
    return _Request(overrides, Path(own["resume"] or ".").absolute(), "changes" in own)


def _resumed(request: _Request, record: RunRecord) -> _Request:
    """The request, with what the earlier command has said."""
    stored = [*record.hydra_overrides, *record.overrides]
    stored = [one for one in stored if not one.startswith(("hydra.mode=", "hydra.run.", "hydra.sweep.dir="))]
    return _Request(merged(stored, request.overrides), request.resume, request.accepted)


def _places(options: Namespace, record: RunRecord | None) -> ConfigPlaces:
    """Where configs are: as the command line says, else as an earlier one did."""
    main, added, name = options.config_path, options.config_dir, options.config_name
    if main is not None and "://" not in main:
        main = os.path.join(Path(__file__).parent, main)
    if record is not None:
        main = main or _users_own(record.config_folder("main"))
        added = added or record.config_folder("command-line")
        name = name or record.config_name
    return ConfigPlaces(name or ConfigPlaces.name, main or ConfigPlaces.main, added)


def _users_own(folder: str | None) -> str | None:
    """The folder, unless it is the one that comes with this program, which may lie elsewhere today."""
    if folder is None or "://" in folder:
        return folder
    path = Path(folder)
    comes_with_us = path.name == CONF_FOLDER.name and (path.parent / "runner" / "config.py").is_file()
    return folder if path.is_dir() and not comes_with_us else None


def _is_sweep(folder: Path, *, asked: bool) -> bool:
    sweep = RunPaths(folder).sweep.exists()
    if asked and not sweep:
        raise UsageError(
            f"{folder} holds one run, and no sweep",
            where="resume",
            next_step="leave --multirun out, or name the folder that has multirun.yaml",
        )
    return sweep


def _enter(folder: Path) -> None:
    """Go to where the run was started: what its config refers to by a relative path, or imports, is there."""
    here = os.getcwd()
    if not folder.is_dir() or os.path.samefile(folder, here):
        return
    os.chdir(folder)
    if sys.path and sys.path[0] == here:  # as `python -m` has it
        sys.path[0] = str(folder)


def _ask_hydra(arguments: list[str], options: Namespace, request: _Request, places: ConfigPlaces) -> int:
    """What runs nothing: --help, --cfg, --info, completion."""

    @hydra.main(config_path=str(CONF_FOLDER), config_name="config", version_base="1.3")
    def nothing(config: DictConfig) -> None:
        """Never called."""

    flags = [one for one in arguments if one not in options.overrides]
    if request.resume is not None:
        flags += [f"--config-name={places.name}", f"--config-path={places.main}"]
        flags += [f"--config-dir={places.added}"] if places.added is not None else []
    sys.argv[1:] = [*flags, *request.overrides]
    if options.shell_completion:
        nothing()
        return ExitCode.OK
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):
            nothing()
    finally:
        print(masked(shown.getvalue()), end="", flush=True)
    return ExitCode.OK
