"""The command line: `python -m host_setup [packages|stem|image|check|network] [options]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from typing import TypeAlias

from host_setup.account import ensure_account
from host_setup.check import check_host
from host_setup.image import ensure_image
from host_setup.network import Network
from host_setup.packages import ensure_packages
from host_setup.stem import ensure_stem
from runner.errors import HostError, RunnerError
from runner.qemu.architectures import ARCHITECTURES, Architecture

_Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_HOST = 4
# As shells report a program that Ctrl-C ended.
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the process's exit code; an error is one screen on standard error."""
    options = _options(arguments)
    chosen = list(ARCHITECTURES.values()) if options.arch == "all" else [ARCHITECTURES[options.arch]]
    try:
        match options.verb:
            case "check":
                return EXIT_OK if check_host(chosen) else EXIT_HOST
            case "packages":
                also = {name for name in ("bridge", "tests", "slurm") if getattr(options, name)}
                _packages(chosen, quiet=False, also=also)
            case "network":
                return _network(options)
            case "stem":
                print(f"stem: {ensure_stem()}")
            case "image":
                _images(chosen, refresh=options.refresh, quiet=False)
            case _:
                _packages(chosen, quiet=True)
                _stem()
                _images(chosen, refresh=False, quiet=True)
    except HostError as error:
        print(error, file=sys.stderr)
        return EXIT_HOST
    except RunnerError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        undone = "; `network remove` undoes what was made" if options.verb == "network" else ""
        print(f"interrupted; what was there before is untouched{undone}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (options.verb != "network" or any(one.startswith("-") for one in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.verb == "network":
        # argparse takes all overrides as such only where no option comes between them and the action.
        options.overrides += rest
    return options


def _network(options: argparse.Namespace) -> int:
    network = Network(options.overrides)
    match options.action:
        case "create":
            network.create(dry_run=options.dry_run)
        case "remove":
            network.remove(dry_run=options.dry_run)
        case _:
            return EXIT_OK if network.check() else EXIT_HOST
    return EXIT_OK


def _packages(architectures: list[Architecture], *, quiet: bool, also: Collection[str] = ()) -> None:
    installed = ensure_packages(
        architectures, bridge="bridge" in also, tests="tests" in also, slurm="slurm" in also
    )
    try:
        ensure_account()
    except HostError as error:
        print(error, file=sys.stderr)
    if not (installed or quiet):
        print("packages: everything is installed")


def _stem() -> None:
    """Nothing depends on it but how long a guest takes to start."""
    try:
        ensure_stem()
    except HostError as error:
        print(error, file=sys.stderr)


def _images(architectures: list[Architecture], *, refresh: bool, quiet: bool) -> None:
    for arch in architectures:
        image = ensure_image(arch, refresh=refresh)
        if not quiet:
            print(f"{arch.name}: {image.folder}")


def _parser() -> argparse.ArgumentParser:
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument(
        "--arch",
        choices=(*ARCHITECTURES, "all"),
        default=argparse.SUPPRESS,
        help="which guests it is for (default: arm64)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m host_setup",
        description="Make this host ready to run guests. Without a verb: packages, stem, image; quick if nothing is to do.",
        epilog="Exit codes: 0 ready, 2 wrong command line, 4 this host cannot (the message says what to do).",
        parents=[which],
    )
    parser.set_defaults(arch="arm64")
    verbs = parser.add_subparsers(dest="verb", metavar="packages|stem|image|check|network")
    _add_packages(verbs, which)
    verbs.add_parser(
        "stem",
        parents=[which],
        help="build what QEMU starts quickly from, if anything changed",
        description="Build the shared object by which a QEMU that is loaded once is forked for each guest. "
        "The same for all guests; without it they start as well, but each 15 ms later.",
    )
    image = verbs.add_parser(
        "image",
        parents=[which],
        help="build the guest image, if anything changed",
        description="Build the guest image from Debian packages and the task loader's sources, without root. "
        "An image that cannot be built leaves the old one in place.",
    )
    image.add_argument("--refresh", action="store_true", help="look for newer Debian packages, too")
    verbs.add_parser(
        "check",
        parents=[which],
        help="tell what this host can do",
        description="Tell, line by line, what this host can do, and what to do about what it cannot. "
        "Boots a guest or two, so it takes some seconds.",
    )
    _add_network(verbs)
    return parser


def _add_packages(verbs: _Verbs, which: argparse.ArgumentParser) -> None:
    packages = verbs.add_parser(
        "packages",
        parents=[which],
        help="install QEMU and the compilers, if missing",
        description="Install QEMU, the C compilers and what else the guest image is built with, through apt, only when missing. "
        "As root: also make the user that QEMU runs as.",
    )
    packages.add_argument(
        "--bridge", action="store_true", help="also what `network` needs: dnsmasq, iproute2"
    )
    packages.add_argument(
        "--tests",
        action="store_true",
        help="also what only the tests need: chromium, postgresql, openssh-server",
    )
    packages.add_argument(
        "--slurm", action="store_true", help="also what the tests with a SLURM of their own need"
    )


def _add_network(verbs: _Verbs) -> None:
    network = verbs.add_parser(
        "network",
        help="make, remove or check the bridge of machines/network=bridge",
        description="Make a bridge with a tap for each of machines.limit machines and a DHCP server, as the config says; remove what "
        "was made; or tell line by line what is missing. Making and removing is root's. A bridge that is there is joined.",
    )
    network.add_argument("action", choices=("create", "remove", "check"))
    network.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    network.add_argument(
        "overrides", nargs="*", help="as of python -m runner: machines.limit=20 machines.network.bridge=br1"
    )


if __name__ == "__main__":
    sys.exit(main())
