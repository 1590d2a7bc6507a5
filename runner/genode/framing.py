"""Messages: a tag or a size of four bytes, little-endian, and what follows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from runner.errors import ProtocolError

# Ten a second come of a busy set, of some KB each. Below AVAILABLE's tag, so that no size can be taken for that.
MAX_PROFILE_BYTES = 1 << 19
MAX_BINARY_BYTES = 1 << 28
NAME_BYTES = 16


class Tag(IntEnum):
    """What a message begins with."""

    SEND_DESCS = 0x00000DE5
    CLEAR = 0x00000DE6
    SEND_BINARIES = 0x0DE5F11E
    START = 0x00514DE5
    STOP = 0x00514DE6
    OPTIMIZE = 0x006F7074
    AVAILABLE = 0x000AAAAA
    REBOOT = 0x000159D3
    #: The server's alone.
    GO_SEND = 0x00000090


@dataclass(frozen=True)
class GoSend:
    """The server takes the next binary."""


@dataclass(frozen=True)
class Pong:
    """The answer to AVAILABLE."""


@dataclass(frozen=True)
class Profile:
    """What has happened to the jobs, as it came."""

    content: bytes


ServerMessage = GoSend | Pong | Profile


def encode_tag(tag: Tag, *numbers: int) -> bytes:
    """A tag, and numbers behind it."""
    return b"".join(number.to_bytes(4, "little") for number in (tag, *numbers))


def encode_sized(tag: Tag, content: bytes) -> bytes:
    """A tag with a document."""
    return encode_tag(tag, len(content)) + content


def encode_binary(name: str, content: bytes) -> bytes:
    """What follows a GO_SEND: `name` has 15 ASCII characters at most."""
    return name.encode("ascii").ljust(NAME_BYTES, b"\0") + len(content).to_bytes(4, "little") + content


class MessageDecoder:
    """Makes messages of the bytes that a server sends, in pieces of any size.

    Guarantees: keeps no more than one message and the piece that it was last fed. After an error it is of no further use: nobody
    knows any more where a message begins.

    Attributes:
        expects_go_send: Whether a binary waits to be sent: GO_SEND's tag is also the size of a small profile.
        broken: Whether an error was raised.
    """

    def __init__(self) -> None:
        self.expects_go_send = False
        self.broken = False
        self._pending = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._pending += piece

    def next_message(self) -> ServerMessage | None:
        """The next message, None where it is not complete.

        Raises:
            ProtocolError: a size is out of range.
        """
        if self.broken:
            raise ProtocolError("the line is out of step with the task loader")
        if len(self._pending) < 4:
            return None
        word = int.from_bytes(self._pending[:4], "little")
        if word == Tag.AVAILABLE:
            del self._pending[:4]
            return Pong()
        if word == Tag.GO_SEND and self.expects_go_send:
            del self._pending[:4]
            return GoSend()
        if not 0 < word <= MAX_PROFILE_BYTES:
            self.broken = True
            raise ProtocolError(
                f"the task loader announced a profile of {word} bytes, must be 1…{MAX_PROFILE_BYTES}"
            )
        if len(self._pending) < 4 + word:
            return None
        content = bytes(self._pending[4 : 4 + word])
        del self._pending[: 4 + word]
        return Profile(content)
