"""The protocol of Genode's task loader, as its client sees it: bytes and texts in, bytes and texts out. Pure."""

from runner.genode.descriptions import Binary, binary_of, check_binary, encode_descriptions, packages
from runner.genode.framing import (
    MAX_PROFILE_BYTES,
    GoSend,
    MessageDecoder,
    Pong,
    Profile,
    ServerMessage,
    Tag,
    encode_binary,
    encode_sized,
    encode_tag,
)
from runner.genode.goal import check_goal
from runner.genode.matching import Matcher
from runner.genode.profiles import ProfileEvent, ProfileEventType, parse_profile

#: Where a task loader listens.
PORT = 3001

__all__ = [
    "MAX_PROFILE_BYTES",
    "PORT",
    "Binary",
    "GoSend",
    "Matcher",
    "MessageDecoder",
    "Pong",
    "Profile",
    "ProfileEvent",
    "ProfileEventType",
    "ServerMessage",
    "Tag",
    "binary_of",
    "check_binary",
    "check_goal",
    "encode_binary",
    "encode_descriptions",
    "encode_sized",
    "encode_tag",
    "packages",
    "parse_profile",
]
