"""What the task loader makes of a Genode client's bytes, under sanitizers."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.task_loader.genode_client import (
    AVAILABLE,
    CLEAR,
    OPTIMIZE,
    SEND_BINARIES,
    SEND_DESCS,
    START,
    STOP,
    document,
    sized,
    task,
    word,
)


def check(program: Path, data: bytes, *, piece: str = "4096") -> list[str]:
    """The lines it prints; fails when a sanitizer has found something."""
    ended = subprocess.run([program, piece], input=data, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, (ended.stderr.decode(), data)
    assert not ended.stderr
    return ended.stdout.decode().splitlines()


EXCHANGE = b"".join(
    [
        word(CLEAR),
        sized(OPTIMIZE, b"<goal><apply>1</apply></goal>"),
        sized(
            SEND_DESCS,
            document(
                task(0, "pi", 8192, priority=3, offset=5, cores=2, coreoffset=1),
                task(1, "own", "a&lt;b", priority=1, offset=7, quota="100M"),
                task(2, priority=128, deadline=100, cores=4, coreoffset=2),
            )
            + b"\0",
        ),
        word(SEND_BINARIES) + word(2),
        b"own".ljust(16, b"\0") + word(5) + b"hello",
        b"../evil".ljust(16, b"\0") + word(0),
        word(START) + word(STOP) + word(AVAILABLE),
    ]
)

UNDERSTOOD = [
    f"word {CLEAR:x}",
    "goal 1",
    "tasks 3",
    "task 0 kind=3 policy=0 priority=97 offset_ns=5000000 cpus=c limit_bytes=10485760",
    "jobs 1 period_ns=500000000 kill_ns=-1 number=8192",
    "argument 8192",
    "task 1 kind=9 policy=0 priority=98 offset_ns=12000000 cpus=0 limit_bytes=104857600",
    "jobs 1 period_ns=500000000 kill_ns=-1 number=-1",
    "argument a<b",
    "task 2 kind=1 policy=2 priority=0 offset_ns=12000000 cpus=4 limit_bytes=10485760",
    "jobs 1 period_ns=500000000 kill_ns=-1 number=-1",
    "file 5 1",
    "file end",
    "file 0 0",
    "file end",
    f"word {START:x}",
    f"word {STOP:x}",
    f"word {AVAILABLE:x}",
]


@pytest.mark.parametrize("piece", ["1", "4096"])
def test_the_documented_exchange_in_pieces_of_any_size(genode_check: Path, piece: str) -> None:
    assert check(genode_check, EXCHANGE, piece=piece) == UNDERSTOOD


def test_every_beginning_of_it_is_a_beginning(genode_check: Path) -> None:
    for end in range(0, len(EXCHANGE), 7):
        lines = check(genode_check, EXCHANGE[:end])
        assert lines == UNDERSTOOD[: len(lines)]


ENTITIES = b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><taskset/>"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not whole"),
        (b"\0", "not whole"),
        (b"<taskset>", "not whole"),
        (b"<taskset></tasksets>", "another element"),
        (b"<taskset/><taskset/>", "more than one document"),
        (b"<taskset/>x", "only elements"),
        (b"<taskset>x</taskset>", "not what a description"),
        (document(task(0).replace("<config></config>", "<config>x</config>")), "not what a description"),
        (b"<a>" * 9, "not what a description"),
        (b"<taskset>" + b"<periodictask>" * 9, "unknown_key"),
        (b"<taskset><periodictask>" + b"<config>" * 9, "not what a description"),
        (ENTITIES, "malformed"),
        (b"<taskset><![CDATA[x]]></taskset>", "malformed"),
        (b"<taskset><?php?></taskset>", "malformed"),
        (document(task(0, pkg="&x;")), "entity"),
        (document(task(0, pkg="&#65;")), "entity"),
        (document(task(0, pkg="a" * 16)), "no program's name"),
        (document(task(0, pkg="a" * 300)), "too long"),
        (document(task(0, pkg="")), "no program's name"),
        (document(task(0, quota="9000000000000000000G")), "quota"),
        (document(task(0, quota="-1")), "quota"),
        (document(task(0, "idle", *"123456789")), "config"),
        (document(task(0, unknown=1)), "unknown"),
        (document(task(0).replace("<id>0</id>", "")), "id"),
        (document(task(0).replace("<id>0</id>", "<id>0</id><id>1</id>")), "id"),
        (document(task(0, period=0, numberofjobs=2)), "without a period"),
        (document(task(0, numberofjobs=10**7, period=9 * 10**8)), "above"),
        (b"<taskset a='1' b=2/>", "malformed"),
        (b"<taskset a='<'/>", "malformed"),
        (b"<!-- <taskset/>", "does not end"),
        (b"<?xml version='1.0'", "does not end"),
    ],
)
def test_descriptions_that_are_refused_say_why(genode_check: Path, text: bytes, why: str) -> None:
    (line,) = check(genode_check, sized(SEND_DESCS, text))
    assert line.startswith("fault ")
    assert why in line


def test_what_xml_allows_besides(genode_check: Path) -> None:
    text = (
        b"<?xml version='1.0'?>\n<!-- one -->\n<taskset n='1'>\n <!-- < & -->"
        + task(0)
        .replace("<config></config>", "<config/>")
        .replace("<caps>235</caps>", "<caps> 235\t</caps >")
        .encode()
        + b"\n</taskset>\n<!-- end -->\0\0"
    )
    assert check(genode_check, sized(SEND_DESCS, text))[0] == "tasks 1"


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed))
        match rng.randrange(5):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                del changed[at : at + rng.randint(1, 40)]
            case 3:
                start = rng.randrange(len(changed))
                changed[at:at] = changed[start : start + rng.randint(1, 200)]
            case _:
                changed[at : at + 4] = word(rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65]))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(10))
def test_mutated_exchanges_and_noise_harm_nothing(genode_check: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(30):
        check(genode_check, mutated(rng, EXCHANGE), piece=rng.choice("14"))
        text = mutated(rng, document(task(0, "pi", 7), task(1, "own", "x")))
        check(genode_check, sized(SEND_DESCS, text))
    check(genode_check, rng.randbytes(4096))
