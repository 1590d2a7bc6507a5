"""What the machines of a run are, as far as it is known before they start: image, emulator, settings, addresses."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner.config.plan import RunPlan
from runner.errors import HostError
from runner.genode import PORT
from runner.hosts.board import parse_address
from runner.network import plan_bridge
from runner.qemu.architectures import architecture
from runner.qemu.image import GuestImage
from runner.specs import BoardSpec, GenodeSpec, NetworkKind, NetworkSpec, QemuSpec, Reset

_TIMEOUT_S = 10.0
_SSH_PORT = 22


def guests(plan: RunPlan) -> dict[str, Any] | None:
    """The facts, for `manifest.json`; None where sessions need no host.

    `host` is the config's word for their kind, `settings` are its section for that. `addresses` are those of task loader or SSH
    server, of machine 1 first; where ports are taken as they are free there are none, and each machine's log tells its own.

    Raises:
        HostError: the image that the plan names is not there.
    """
    if plan.qemu is not None:
        return _qemu(plan.qemu, plan.reset, plan.limit)
    if plan.genode is not None:
        return _genode(plan.genode, plan.reset, plan.limit)
    if plan.boards is not None:
        return _boards(plan.boards, plan.reset)
    return None


def first_line(command: list[str]) -> str | None:
    """What a short command prints first; None if it fails, or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    return lines[0] if lines else None


def _qemu(spec: QemuSpec, reset: Reset, limit: int) -> dict[str, Any]:
    image = GuestImage.load(spec.image, arch=spec.arch) if spec.image else GuestImage.current(spec.arch)
    port, forwarded = (PORT, spec.genode_port) if spec.serves_genode else (_SSH_PORT, spec.ssh_port)
    return {
        "host": "qemu",
        "settings": _settings(spec, reset),
        "image_sha256": image.digest,
        "kernel_release": image.kernel_release,
        "qemu": _version(spec.qemu_binary or architecture(spec.arch).qemu_binary),
        "addresses": _addresses(spec.network, limit, port, forwarded),
    }


def _genode(spec: GenodeSpec, reset: Reset, limit: int) -> dict[str, Any]:
    try:
        with spec.image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise HostError.because(
            exc, "the Genode image cannot be read", where="machines.genode.image"
        ) from exc
    return {
        "host": "genode_pbxa9",
        "settings": _settings(spec, reset),
        "image_sha256": digest,
        "qemu": _version(spec.qemu_binary),
        "addresses": _addresses(spec.network, limit, PORT, None),
    }


def _boards(spec: BoardSpec, reset: Reset) -> dict[str, Any]:
    return {
        "host": "genode_board",
        "settings": _settings(spec, reset),
        "addresses": [_with_port(*parse_address(text)) for text in spec.addresses],
    }


def _settings(spec: QemuSpec | GenodeSpec | BoardSpec, reset: Reset) -> dict[str, Any]:
    return {**{key: _plain(value) for key, value in asdict(spec).items()}, "reset": reset.value}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever specs hold
    """As JSON gives it back: a resumed run compares."""
    match value:
        case Path():
            return str(value)
        case tuple():
            return list(value)
        case _:
            return value


def _version(binary: str) -> str | None:
    found = shutil.which(binary)
    return None if found is None else first_line([found, "--version"])


def _addresses(network: NetworkSpec, limit: int, port: int, forwarded: int | None) -> list[str]:
    """
    Args:
        port: The guests'.
        forwarded: This computer's that leads to it in machine 1; the next one leads to machine 2.
    """
    if network.kind is NetworkKind.BRIDGE:
        return [_with_port(str(one.address), port) for one in plan_bridge(network, limit).attachments]
    if forwarded is not None:
        return [_with_port("127.0.0.1", forwarded + idx) for idx in range(limit)]
    return []


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
