"""The watcher: however an editor saves, the content arrives within a second, and once."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.operator.control import MAX_CHARS, parse
from runner.operator.control_watcher import ControlWatcher
from tests.fleet_samples import eventually

OLD, NEW = "machines: 2\nstate: run\n", "machines: 4\nstate: run\n"
#: A busy computer may take longer than the second that the operator is promised; reaching this is a hang.
EFFECT_S = 20.0


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "control.yaml"
    path.write_text(OLD)
    return path


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def in_place_with_sync(path: Path, text: str) -> None:
    with path.open("r+") as file:
        file.truncate()
        file.flush()
        time.sleep(0.1)  # a slow disk: the file is empty meanwhile
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def rename_over(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.swp")
    new.write_text(text)
    new.replace(path)


def backup_and_rename(path: Path, text: str) -> None:
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    new = path.with_name("4913")
    new.write_text(text)
    new.rename(path)
    backup.unlink()


def delete_and_create(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(0.15)
    path.write_text(text)


def from_another_file_system(path: Path, text: str) -> None:
    """As `cp` does: the old inode, its content exchanged."""
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        for byte in text.encode():
            os.write(handle, bytes([byte]))
    finally:
        os.close(handle)


def wait_for(seen: list[str], text: str) -> None:
    """Fail unless it is the last that was told, within the time that is promised."""
    eventually(lambda: seen[-1:] == [text], EFFECT_S)


SAVES = [
    in_place,
    in_place_with_sync,
    rename_over,
    backup_and_rename,
    delete_and_create,
    from_another_file_system,
]


@pytest.mark.parametrize("save", SAVES)
def test_every_way_of_saving_arrives(path: Path, save: Callable[[Path, str], None]) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        for text in (NEW, OLD, NEW):
            save(path, text)
            wait_for(seen, text)


@pytest.mark.parametrize("save", SAVES)
def test_the_same_content_is_told_once(path: Path, save: Callable[[Path, str], None]) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        save(path, OLD)
        save(path, NEW)
        eventually(lambda: NEW in seen, EFFECT_S)
        save(path, NEW)
        time.sleep(0.7)
    # A save in steps may be seen half-way; the whole is never told twice.
    assert seen.count(NEW) == 1
    assert OLD not in seen


def test_a_save_in_two_steps_ends_with_the_whole(path: Path) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        with path.open("w") as file:
            file.write(NEW[:13])
            file.flush()
            time.sleep(0.4)
            file.write(NEW[13:])
        eventually(lambda: seen[-1:] == [NEW], EFFECT_S)


def test_a_touch_tells_nothing(path: Path) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        for _ in range(3):
            path.touch()
            time.sleep(0.2)
    assert seen == []


def test_many_saves_in_a_row_end_with_the_last(path: Path) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        for number in range(100):
            (in_place, rename_over)[number % 2](path, f"machines: {number}\nstate: run\n")
        eventually(lambda: seen[-1:] == ["machines: 99\nstate: run\n"], EFFECT_S)


@pytest.mark.parametrize("text", ["machines: many\n", "\x00\n", "ünïcödé\n", "x" * 5_000])
def test_content_that_is_not_valid_is_passed_on(path: Path, text: str) -> None:
    """Whether it can be followed is not the watcher's business."""
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        rename_over(path, text)
        eventually(lambda: seen == [text], EFFECT_S)


def test_bytes_that_are_no_text_are_passed_on_as_such(path: Path) -> None:
    """So that the operator is told the line, like for everything else that cannot be followed."""
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        path.write_bytes(b"state: run\nmachines: \xff\xfe\n")
        eventually(lambda: len(seen) == 1, EFFECT_S)
        with pytest.raises(UsageError, match="no valid YAML") as caught:
            parse(seen[0], 7)
        assert caught.value.where == "line 2"
        in_place(path, NEW)
        eventually(lambda: seen[1:] == [NEW], EFFECT_S)


def test_of_a_huge_file_the_start_is_read(path: Path) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        with path.open("wb") as file:
            file.write(b"machines: 3\n")
            file.truncate(1 << 40)  # a hole: it takes no room
        eventually(lambda: len(seen) == 1, EFFECT_S)
    assert MAX_CHARS < len(seen[0]) < 100_000


def test_a_pipe_in_the_place_of_the_file_is_reported_and_survived(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody will ever write to it."""
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        path.unlink()
        os.mkfifo(path)
        eventually(lambda: "cannot be read" in caplog.text, EFFECT_S)
        path.unlink()
        in_place(path, NEW)
        eventually(lambda: seen == [NEW], EFFECT_S)


@pytest.mark.parametrize("text", ["", "\n", "   \n\n"])
def test_an_empty_file_is_the_middle_of_a_save(path: Path, text: str) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        in_place(path, text)
        time.sleep(0.3)
        assert seen == []
        in_place(path, NEW)
        eventually(lambda: seen == [NEW], EFFECT_S)


def test_a_file_that_is_gone_changes_nothing(path: Path) -> None:
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        path.unlink()
        time.sleep(0.6)
        assert seen == []
        in_place(path, NEW)
        eventually(lambda: seen == [NEW], EFFECT_S)


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "qu'o\"te",
        "new\nline",
        "; echo foo",
        "ünï",
        "*?[x]",
        "%s{0}",
        b"\xff\xfe".decode(errors="surrogateescape"),
    ],
)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "control.yaml"
    path.parent.mkdir()
    path.write_text(OLD)
    seen: list[str] = []
    with ControlWatcher(path, seen.append):
        rename_over(path, NEW)
        eventually(lambda: seen == [NEW], EFFECT_S)


def test_a_link_is_followed(tmp_path: Path, path: Path) -> None:
    """As where the run folder lies on another disk, and the operator edits beside it."""
    link = tmp_path / "link"
    link.mkdir()
    (link / "control.yaml").symlink_to(path)
    seen: list[str] = []
    with ControlWatcher(link / "control.yaml", seen.append):
        in_place(link / "control.yaml", NEW)
        eventually(lambda: seen == [NEW], EFFECT_S)


def test_a_save_before_the_watch_stands_is_seen_in_a_busy_folder(path: Path) -> None:
    """The run folder is written to all the time: that must not keep the watcher from looking again."""
    seen: list[str] = []
    stop = threading.Event()

    def churn() -> None:
        while not stop.wait(0.02):
            rename_over(path.with_name("status.json"), "{}")

    thread = threading.Thread(target=churn)
    watcher = ControlWatcher(path, seen.append)
    in_place(path, NEW)
    thread.start()
    try:
        with watcher:
            eventually(lambda: seen == [NEW], EFFECT_S)
    finally:
        stop.set()
        thread.join()


def test_an_order_that_cannot_be_followed_does_not_end_the_watch(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A save while the run is ending finds a fleet that is closed."""
    seen: list[str] = []

    def follow(text: str) -> None:
        seen.append(text)
        if len(seen) == 1:
            raise UsageError("Distributor.pause() after close()")

    with ControlWatcher(path, follow):
        in_place(path, NEW)
        eventually(lambda: seen == [NEW], EFFECT_S)
        in_place(path, OLD)
        eventually(lambda: seen == [NEW, OLD], EFFECT_S)
    assert "after close()" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_it_ends_at_once(path: Path) -> None:
    with ControlWatcher(path, lambda text: None):
        time.sleep(0.1)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 0.7


def test_a_missing_file_is_refused_at_the_beginning(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ControlWatcher(tmp_path / "control.yaml", lambda text: None)
