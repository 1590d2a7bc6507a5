"""A real browser that looks at a page, without a screen: what it renders, what it complains of, what it asks the network for."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE_S = 120.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-domain-reliability",
    "--disable-client-side-phishing-detection",
    "--no-pings",
    "--disable-features=NetworkTimeServiceQuerying,OptimizationHints,MediaRouter,Translate,AutofillServerCommunication"
    ",CertificateTransparencyComponentUpdater",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
# What a browser asks its maker for by itself, whatever the page is, and in spite of the flags.
_CHATTER = re.compile(
    r"[A-Z]+ (https?://)?((update|optimizationguide-pa)\.googleapis\.com|[a-z0-9.]+\.google\.com)[:/]"
)


@dataclass(frozen=True)
class Look:
    """What came of it.

    Attributes:
        dom: The page as it was rendered, as HTML.
        complaints: Lines of the console.
        requests: First lines of what it sent to the proxy on behalf of the page: everything that would have left the computer.
        picture: A PNG file.
    """

    dom: str
    complaints: tuple[str, ...]
    requests: tuple[str, ...]
    picture: Path


def look_at(page: Path, folder: Path, *, width: int = 1240, height: int = 2600, dark: bool = False) -> Look:
    """Render a file, as a picture and as text."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.fail("there is no browser: python -m host_setup packages --tests installs Debian's chromium")
    picture = folder / "picture.png"
    with listening() as (port, requests):
        command = [
            browser,
            *_FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--proxy-server=127.0.0.1:{port}",
            "--proxy-bypass-list=<-loopback>",
            f"--window-size={width},{height}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        ]
        done = subprocess.run(
            [*command, f"--screenshot={picture}", "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    of_page = [line for line in requests if not _CHATTER.match(line)]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Look(done.stdout, tuple(complaints), tuple(of_page), picture)


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A port that notes the first line of whatever comes in, and answers nothing."""
    requests: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_listen, args=(server, requests))
        thread.start()
        try:
            yield server.getsockname()[1], requests
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _listen(server: socket.socket, requests: list[str]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5.0)
            try:
                requests.append(connection.recv(4096).split(b"\r\n")[0].decode(errors="replace"))
            except OSError as exc:
                requests.append(f"a connection: {exc}")
