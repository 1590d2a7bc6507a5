"""A cache of images and snapshots for a rehearsal alone: what others do to theirs, and it to its own, is nobody else's business."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runner.qemu.image import cache_root

_SNAPSHOTS = "snapshots"


def make_cache(cache: Path) -> None:
    """Make one beside the user's: the same images, and the same snapshots as far as that costs neither room nor time.

    Raises:
        OSError: the folder cannot be written.
    """
    _share(cache_root(), cache)
    for snapshot in _snapshots(cache_root()):
        copy = cache / _SNAPSHOTS / snapshot.name
        try:
            copy.mkdir()
            os.link(snapshot / "ram", copy / "ram")
            _copy_all_but_ram(snapshot, copy)
        except OSError:  # on another disk, or deleted just now: it is made when it is needed
            shutil.rmtree(copy, ignore_errors=True)


def spoil_cache(cache: Path, spoilt: Path, seed: int) -> Iterator[Path]:
    """Make another one of it in which a byte of each snapshot's device state has another value; their seals, one by one.

    Raises:
        OSError: the folder cannot be written.
    """
    _share(cache, spoilt)
    for snapshot in _snapshots(cache):
        copy = spoilt / _SNAPSHOTS / snapshot.name
        copy.mkdir()
        (copy / "ram").symlink_to(snapshot / "ram")
        _copy_all_but_ram(snapshot, copy)
        state = bytearray((copy / "state").read_bytes())
        state[seed % len(state)] ^= 0x10
        (copy / "state").write_bytes(state)
        yield copy / "snapshot.json"


def _snapshots(cache: Path) -> Iterator[Path]:
    for seal in (cache / _SNAPSHOTS).glob("*/snapshot.json"):
        yield seal.parent


def _share(cache: Path, other: Path) -> None:
    (other / _SNAPSHOTS).mkdir(parents=True, mode=0o700)
    with suppress(FileNotFoundError):  # there is none, nor anything to run guests with
        for one in cache.iterdir():
            if one.name != _SNAPSHOTS:
                (other / one.name).symlink_to(one)


def _copy_all_but_ram(snapshot: Path, copy: Path) -> None:
    for path in snapshot.iterdir():
        if path.name != "ram":
            shutil.copy2(path, copy / path.name)
