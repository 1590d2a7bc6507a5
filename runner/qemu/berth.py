"""Where one emulator is at home: its name, its files, its log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from runner.network import Attachment
from runner.qemu.bounded_log import old_log, size_bytes
from runner.qemu.failure import tail
from runner.qemu.shared_memory import MailboxMemory


@dataclass(frozen=True, kw_only=True)
class Berth:
    """Where one emulator is at home.

    Attributes:
        name: For messages and `ps`: `qemu1`.
        folder: Receives the console's log and QEMU's stderr.
        ssh_port: Loopback port that leads to the guest's SSH server; 0 takes a free one, None forwards nothing.
        genode_port: Loopback port that leads to the guest's Genode task loader; None: it has none.
        mailbox: The mailbox's memory; None where the guest has none.
        cpu: The CPU of this computer that is its own; None lets it wander.
        attachment: Its place on the bridge; None: on none.
        log_prefix: Of the files' names in `folder`.
        loads_anew: Whether QEMU is loaded from its file rather than forked from its stem.
    """

    name: str
    folder: Path
    ssh_port: int | None = None
    genode_port: int | None = None
    mailbox: MailboxMemory | None = None
    cpu: int | None = None
    attachment: Attachment | None = None
    log_prefix: str = ""
    loads_anew: bool = False

    @property
    def log(self) -> logging.Logger:
        """A child of the machine's own, so that what is logged ends up in the machine's file."""
        return logging.getLogger("runner.machine").getChild(self.name).getChild("qemu")

    @property
    def console_log(self) -> Path:
        """Everything that the guest's console showed."""
        return self.folder / f"{self.log_prefix}console.log"

    @property
    def stderr_log(self) -> Path:
        """Everything that QEMU itself had to say."""
        return self.folder / f"{self.log_prefix}qemu.stderr"

    def evidence(self, console_start_byte: int = 0) -> str:
        """The last lines of both; of the console's, what comes after `console_start_byte`."""
        console = self.console_log
        if size_bytes(console) < console_start_byte:  # it has grown long, and was put aside
            console = old_log(console)
        parts = (
            tail(console, n_lines=12, start_byte=console_start_byte),
            tail(self.stderr_log, n_lines=6),
        )
        return "\n".join(part for part in parts if part)
