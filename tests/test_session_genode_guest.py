"""The session over Genode's protocol against our own guest: the contract, over a port that leads to it.

`tests/test_bridge_guests.py` runs these tests once more where there is a bridge, and says so in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from runner.deadline import Deadline
from runner.events import ExitType, RefusedEvent
from runner.hosts.base import AbstractHost
from runner.model import Policy, TaskSet
from runner.qemu.host import QemuHost
from runner.sessions.base import AbstractSession
from runner.specs import Clock, NetworkKind, NetworkSpec, Reach
from tests.genode_contract import AnyOverrun, GenodeContract
from tests.qemu_guests import PATIENCE_S, guest_spec
from tests.session_contract import MS, periodic, run

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AbstractHost]:
    kind = NetworkKind(os.environ.get("RTFLEET_TEST_NETWORK", "user"))
    spec = guest_spec("arm64", clock=Clock.ICOUNT, reach=Reach.GENODE, network=NetworkSpec(kind=kind))
    with QemuHost(spec, "qemu1", tmp_path_factory.mktemp("guest")) as host:
        host.start(Deadline.after(PATIENCE_S))
        host.resume()
        yield host


class TestContract(GenodeContract):
    @pytest.fixture
    def session(self, host: AbstractHost) -> Iterator[AbstractSession]:
        with closing(AnyOverrun(host)) as session:
            session.open(Deadline.after(PATIENCE_S))
            # Any goal has our guest ask its kernel.
            session.configure(("<goal><fairness>1</fairness></goal>",))
            yield session

    @pytest.fixture
    def response_tolerance(self) -> Callable[[int], int]:
        return lambda response_ns: 2 * MS

    def test_a_refused_task_leaves_the_others_alone(self, session: AbstractSession) -> None:
        """What the kernel admits is the critical time: the protocol has no other budget."""
        tasks = tuple(
            periodic(15, 50, n_jobs=2, policy=Policy.DEADLINE, kill_after_start_ns=20 * MS) for _ in range(3)
        )
        transcript = run(session, TaskSet(tasks))
        assert transcript.refused == [RefusedEvent(2, 16, "EBUSY")]
        assert transcript.exits(0) == transcript.exits(1) == [ExitType.EXIT] * 2
        assert transcript.exits(2) == [ExitType.NOT_SCHEDULED]
