"""Build the shared object with which QEMU starts quickly and keeps exact time: whole or not at all, and only when something changed.

<cache>/stem/<16 digits>.so    one for each source and compiler, never changed
<cache>/stem/current.so        link to the one to use, replaced atomically
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from host_setup.command import run_command
from runner.errors import HostError
from runner.files.private import make_private
from runner.qemu.stem import shim_path

SOURCES = tuple(sorted((Path(__file__).parent / "host").glob("*.[ch]")))

#: This computer's own, whatever the guests' are.
COMPILER = "gcc"

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-s", "-Wl,--build-id=none")
_TIMEOUT_S = 60.0
_BY_HAND = (
    "if it is missing: python -m host_setup packages; without it each guest starts 15 ms later,"
    " and on a busy host not every measurement repeats exactly"
)


def ensure_stem(*, compiler: str = COMPILER, report: Callable[[str], None] = print) -> Path:
    """The shared object for this source and this compiler, built first if there is none; takes 2 ms if there is.

    Raises:
        HostError: when it cannot be built; the one that was current before still is, and no file is left over.
    """
    link = shim_path()
    target = link.with_name(f"{_digest(compiler)}.so")
    try:
        if not target.exists():
            report("compiling what QEMU starts quickly from")
            _build(compiler, target)
        if not (link.is_symlink() and link.readlink() == Path(target.name)):
            _point(link, target)
    except OSError as exc:
        raise HostError(
            f"what QEMU starts quickly from cannot be written: {exc.strerror}",
            where=str(exc.filename or target),
            next_step="make room or rights there, or set RTFLEET_CACHE to another folder",
        ) from exc
    return target


def is_current(*, compiler: str = COMPILER) -> bool:
    """Whether the shared object in use is what `ensure_stem` would build.

    Raises:
        HostError: when there is no compiler.
    """
    link = shim_path()
    return link.exists() and link.readlink() == Path(f"{_digest(compiler)}.so")


def _digest(compiler: str) -> str:
    version = run_command(
        [compiler, "--version"],
        doing="asking the C compiler's version",
        timeout_s=_TIMEOUT_S,
        next_step=_BY_HAND,
    )
    words = [*(source.read_text(encoding="utf-8") for source in SOURCES), compiler, version, *_FLAGS]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _build(compiler: str, target: Path) -> None:
    make_private(target.parent)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as name:
        made = Path(name) / target.name
        run_command(
            [compiler, *_FLAGS, "-o", made, *(path for path in SOURCES if path.suffix == ".c"), "-ldl"],
            doing="compiling what QEMU starts quickly from",
            timeout_s=_TIMEOUT_S,
            next_step=_BY_HAND,
        )
        made.chmod(0o755)  # a QEMU that has become another user opens it, too
        made.replace(target)


def _point(link: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=link.parent) as name:
        made = Path(name) / link.name
        made.symlink_to(target.name)
        made.replace(link)
