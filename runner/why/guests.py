"""What the machines of a run are, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.files.durable import read_json
from runner.network import machine_number

_N_ADDRESSES = 8


@dataclass(frozen=True, kw_only=True)
class Guests:
    """As far as the manifest tells; nothing of what is damaged or missing.

    Attributes:
        image_sha256: Digest of what they boot.
        image: Its path, where the config names one.
        qemu: The emulator, in its own words.
        addresses: Of machine 1 first; empty where ports were taken as they were free.
    """

    image_sha256: str | None = None
    image: str | None = None
    qemu: str | None = None
    addresses: tuple[str, ...] = ()

    def address(self, machine: str) -> str | None:
        """That of a machine, by its name; None where it is not known."""
        idx = machine_number(machine) - 1
        return self.addresses[idx] if idx < len(self.addresses) else None

    @property
    def lines(self) -> tuple[str, ...]:
        """In words."""
        shown = ", ".join(self.addresses[:_N_ADDRESSES])
        more = len(self.addresses) - _N_ADDRESSES
        found = {
            "image": " ".join(
                filter(None, (self.image, self.image_sha256 and f"(sha256 {self.image_sha256})"))
            ),
            "emulator": self.qemu,
            "addresses": f"{shown}{f' and {more} more' if more > 0 else ''}",
        }
        return tuple(f"{name}: {text}" for name, text in found.items() if text)


def read_guests(manifest: Path) -> Guests:
    """What a manifest tells of them."""
    try:
        content = read_json(manifest)
    except (OSError, ValueError):
        return Guests()
    told = _mapping(content, "guest")
    addresses = told.get("addresses")
    return Guests(
        image_sha256=_text(told, "image_sha256"),
        image=_text(_mapping(told, "settings"), "image"),
        qemu=_text(told, "qemu"),
        addresses=tuple(map(str, addresses)) if isinstance(addresses, list) else (),
    )


def _mapping(value: Any, key: str) -> Mapping[str, Any]:  # noqa: ANN401 - plain values
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    return value if isinstance(value, str) and value else None
