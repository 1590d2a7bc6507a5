"""QEMU's control channel, for threads: the `qemu.qmp` library's event loop in one thread per guest."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, TypeVar

from qemu.qmp import ConnectError, EventListener, Message, QMPClient, QMPError
from qemu.qmp.protocol import Runstate
from qemu.qmp.qmp_client import ExecuteError

from runner.deadline import Deadline
from runner.errors import ProtocolError, SessionLost

T = TypeVar("T")
_log = logging.getLogger("runner.qemu.qmp")

#: How often `on_look` is called.
LOOK_INTERVAL_S = 1.0

#: Called with an event's name and data.
OnEvent = Callable[[str, Mapping[str, object]], None]


@dataclass(frozen=True)
class Command:
    """A command whose answer says nothing.

    Attributes:
        name: QMP's.
        arguments: By QMP's names.
        fd: A file descriptor that goes along.
    """

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    fd: int | None = None


class _QuietClient(QMPClient):
    """The library's client without its log of every message, which it formats even if nobody reads it: a quarter of its time."""

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class QmpMonitor:
    """Give commands to one QEMU and hear of its events.

    Guarantees: events arrive in QEMU's order, all on the monitor's own thread. `on_lost` is called there once if the
    connection ends before `close()`; no call is left waiting then. `on_look` is called there once a second.
    Threads: `execute` and `execute_all` are for any thread but the monitor's own.
    """

    def __init__(
        self,
        name: str,
        channel: socket.socket,
        on_event: OnEvent,
        on_lost: Callable[[], None],
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over `channel`, a connected socket to QEMU, and start to talk.

        Args:
            name: For messages: `qemu1`.
        """
        self._name = name
        self._on_event = on_event
        self._on_lost = on_lost
        self._on_look = on_look
        self._client = _QuietClient(name)
        # What the library has to say, it raises as well; and takes a `close` amid its own end for a critical bug of its own.
        self._client.logger = logging.getLogger("runner.machine").getChild(name).getChild("qmp")
        self._client.logger.setLevel(logging.CRITICAL + 1)
        self._ready: Future[str] = Future()
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: asyncio.Task[None] | None = None
        self._closing = False
        self._thread = Thread(target=self._run, args=(channel,), name=f"qmp-{name}")
        self._thread.start()

    def wait_ready(self, deadline: Deadline) -> str:
        """Wait until commands can be given; QEMU's version.

        Raises:
            SessionLost: when QEMU did not answer in time, or ended.
        """
        with self._translated("its greeting", deadline):
            return self._ready.result(deadline.remaining_s)

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """What QEMU returns for a command. Underscores in names of arguments become the hyphens that QMP has.

        Raises:
            ProtocolError: QEMU refused it; says why.
            SessionLost: QEMU did not answer in time, or the connection is gone.
        """
        sent = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self._call(self._client.execute(command, sent), command, deadline)

    def execute_all(self, commands: Sequence[Command], deadline: Deadline) -> None:
        """Give several commands, one after the other; those after one that was refused are not given.

        Raises:
            As `execute`.
        """

        async def execute() -> None:
            for command in commands:
                if command.fd is not None:
                    self._client.send_fd_scm(command.fd)
                await self._client.execute(command.name, dict(command.arguments))

        self._call(execute(), ", ".join(command.name for command in commands), deadline)

    def close(self) -> None:
        """End the connection and its thread; again does nothing. Not from the monitor's own thread."""
        with self._lock:
            self._closing = True
            if self._loop is not None and self._session is not None:
                self._loop.call_soon_threadsafe(self._session.cancel)
        self._thread.join()

    def _call(self, coroutine: Coroutine[Any, Any, T], command: str, deadline: Deadline) -> T:
        with self._lock:
            loop = self._loop
            if loop is None:
                coroutine.close()
                raise SessionLost(f"{self._name}: QEMU's monitor is closed", where=f"QMP command {command}")
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        with self._translated(command, deadline):
            try:
                return future.result(deadline.remaining_s)
            finally:
                future.cancel()

    @contextmanager
    def _translated(self, command: str, deadline: Deadline) -> Iterator[None]:
        where = f"{self._name}, QMP: {command}"
        try:
            yield
        except ExecuteError as exc:
            raise ProtocolError(f"QEMU refused a command: {exc.error.error.desc}", where=where) from exc
        except TimeoutError as exc:
            raise SessionLost(f"QEMU did not answer within {deadline.budget_s:g} s", where=where) from exc
        except (QMPError, OSError, EOFError, CancelledError) as exc:
            raise SessionLost("the connection to QEMU's monitor ended", where=where) from exc

    def _run(self, channel: socket.socket) -> None:
        try:
            with suppress(asyncio.CancelledError):
                asyncio.run(self._talk(channel))
        except Exception as exc:  # noqa: BLE001 - the thread's top: QEMU said what the library, or we, stumbled over
            _log.warning("%s: QEMU's monitor does not speak QMP: %r", self._name, exc)
        finally:
            channel.close()
            self._ready.cancel()
            if not self._closing:
                self._on_lost()

    async def _talk(self, channel: socket.socket) -> None:
        with self._lock:
            if self._closing:
                return
            self._loop = asyncio.get_running_loop()
            self._loop.set_exception_handler(_note_stray)
            self._session = asyncio.current_task()
        try:
            with self._client.listener() as listener:
                await self._client.connect(channel)
                self._ready.set_result(_version(self._client))
                await self._deliver_until_lost(listener)
        except ConnectError as exc:
            self._ready.set_exception(exc)
        finally:
            with self._lock:
                self._loop = None
            # Calls that got in before are scheduled by now; asyncio.run() cancels those that remain. A `close` that got in
            # before is told here, too, and must not keep the connection open.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            with suppress(Exception):  # whatever ended the connection is raised once more
                await self._client.disconnect()

    async def _deliver_until_lost(self, listener: EventListener) -> None:
        pump = asyncio.create_task(self._pump(listener))
        while self._client.runstate is Runstate.RUNNING and not pump.done():
            change = asyncio.create_task(self._client.runstate_changed())
            done, _ = await asyncio.wait(
                {pump, change}, timeout=LOOK_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                change.cancel()
                self._on_look()
        if pump.done():
            pump.result()
        pump.cancel()
        for event in listener.clear():
            self._deliver(event)

    async def _pump(self, listener: EventListener) -> None:
        async for event in listener:
            self._deliver(event)

    def _deliver(self, event: Mapping[str, object]) -> None:
        data = event.get("data", {})
        self._on_event(str(event["event"]), data if isinstance(data, Mapping) else {})


def _note_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio finds in a future that nobody asked: qemu.qmp leaves one behind when QEMU hangs up first.

    The loss itself is told by `disconnect()` and `on_lost`, so it is not told again on standard error.
    """
    if isinstance(context.get("exception"), EOFError | OSError | QMPError):
        _log.debug("stray: %s: %r", context.get("message"), context["exception"])
    else:
        _log.warning("stray: %s: %r", context.get("message"), context.get("exception"))


def _version(client: QMPClient) -> str:
    greeting: Any = client.greeting
    version = greeting.QMP.version
    number, package = version["qemu"], version.get("package", "").strip("()")
    plain = f"{number['major']}.{number['minor']}.{number['micro']}"
    return f"{plain} ({package})" if package else plain
