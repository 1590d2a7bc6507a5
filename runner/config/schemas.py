"""The shapes of the config's groups, which Hydra holds every YAML file and every override against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from runner.admission.capacity import Reserves
from runner.config.expected import ExpectedConf
from runner.config.generators import BoundaryConf, GrowingConf, RandomConf
from runner.config.monitors import MONITORS
from runner.disturbance import DisturbanceLimits
from runner.specs import BoardSpec, Console, GenodeSpec, MachinePolicy, NetworkSpec, QemuSpec, Reset


@dataclass
class UUniFastConf:
    """`tasksets=uunifast`; see `runner.tasksets.uunifast.UUniFastTaskSets`."""

    _target_: str = "runner.tasksets.uunifast.UUniFastTaskSets"
    n_tasks: int = MISSING
    utilizations: list[float] = MISSING
    sets_per_utilization: int = MISSING
    periods: list[str] = MISSING
    hyperperiods: float = 3.0
    seed: int = 0
    policy: str = "fifo"
    overrun_policy: str = "continue"
    admission_control: bool = True
    dl_margin: float = 0.02
    dl_margin_least: str = "100us"


@dataclass
class ExplicitConf:
    """`tasksets=explicit`; see `runner.tasksets.explicit.ExplicitTaskSets`."""

    _target_: str = "runner.tasksets.explicit.ExplicitTaskSets"
    tasksets: list[Any] = MISSING


@dataclass
class FileConf:
    """`tasksets=file`; see `runner.formats.source.FileTaskSets`."""

    _target_: str = "runner.formats.source.FileTaskSets"
    path: str = MISSING
    format: str | None = None
    unit: str = "us"
    duration: str | None = None
    lossy: bool = False


@dataclass
class QemuConf:
    """How guests are built and booted; see `runner.specs.QemuSpec`."""

    arch: str = QemuSpec.arch
    clock: str = QemuSpec.clock.value
    cpu_mips: float = QemuSpec.cpu_mips
    vcpus: int = QemuSpec.vcpus
    memory_mib: int = QemuSpec.memory_mib
    mailbox_mib: int = QemuSpec.mailbox_mib
    image: str | None = None
    qemu_binary: str | None = None
    ssh_port: int | None = None
    genode_port: int | None = None
    snapshot: bool = QemuSpec.snapshot
    boot_timeout_s: float = QemuSpec.boot_timeout_s
    start_timeout_s: float = QemuSpec.start_timeout_s


@dataclass
class GenodeConf:
    """For `host: genode_pbxa9`; see `runner.specs.GenodeSpec`."""

    image: str | None = None
    clock: str = GenodeSpec.clock.value
    cpu_mips: float = GenodeSpec.cpu_mips
    vcpus: int = GenodeSpec.vcpus
    memory_mib: int = GenodeSpec.memory_mib
    qemu_binary: str = GenodeSpec.qemu_binary


@dataclass
class BoardConf:
    """For `host: genode_board`; see `runner.specs.BoardSpec`."""

    addresses: list[str] = field(default_factory=list)
    power: list[str] = field(default_factory=list)
    power_timeout_s: float = BoardSpec.power_timeout_s
    vcpus: int | None = None


@dataclass
class PolicyConf:
    """How patient machines are; see `runner.specs.MachinePolicy`."""

    max_tries: int = MachinePolicy.max_tries
    max_guest_tries: int = MachinePolicy.max_guest_tries
    max_host_tries: int = MachinePolicy.max_host_tries
    max_failures: int = MachinePolicy.max_failures
    aside_s: float = MachinePolicy.aside_s
    aside_max_s: float = MachinePolicy.aside_max_s
    max_asides: int = MachinePolicy.max_asides
    start_timeout_s: float = MachinePolicy.start_timeout_s
    request_timeout_s: float = MachinePolicy.request_timeout_s
    taskset_timeout_s: float = MachinePolicy.taskset_timeout_s
    taskset_timeout_factor: float = MachinePolicy.taskset_timeout_factor


@dataclass
class DisturbanceConf:
    """What a measurement on the host's clock may suffer; see `runner.disturbance.DisturbanceLimits`."""

    steal_fixed_ns: int = DisturbanceLimits().steal_fixed_ns
    steal_ppm: int = DisturbanceLimits().steal_ppm
    sched_delay_fixed_ns: int = DisturbanceLimits().sched_delay_fixed_ns
    sched_delay_ppm: int = DisturbanceLimits().sched_delay_ppm
    clock_drift_fixed_ns: int = DisturbanceLimits().clock_drift_fixed_ns
    clock_drift_ppm: int = DisturbanceLimits().clock_drift_ppm


@dataclass
class AdmissionConf:
    """What the run leaves to others: otherwise fewer machines run, or none is given a task set; see `runner.admission.capacity`."""

    memory_reserve_mib: int = Reserves.memory_mib
    disk_reserve_mib: int = Reserves.disk_mib
    computer_limit: int | None = Reserves.computer_limit


@dataclass
class NetworkConf:
    """What the machines are connected to; see `runner.specs.NetworkSpec`."""

    kind: str = NetworkSpec.kind.value
    bridge: str = NetworkSpec.bridge
    address: str = NetworkSpec.address
    first_host: str = NetworkSpec.first_host
    mac_prefix: str = NetworkSpec.mac_prefix
    tap_prefix: str = NetworkSpec.tap_prefix
    interface: str | None = None


@dataclass
class ClusterConf:
    """Where machines are, if not on this computer; see `runner.config.plan.ClusterPlan`."""

    dask: dict[str, Any] = field(default_factory=dict)
    guests_per_worker: int | None = None
    patience_s: float = 60.0
    answer_s: float = 90.0
    silence_s: float = 120.0
    checked_share: float = 0.0


@dataclass
class MachinesConf:
    """The fleet: how many machines, and what they are made of.

    Attributes:
        count: Machines at the start.
        limit: What the control file cannot go beyond.
        host: `qemu`, `genode_pbxa9`, `genode_board`, or `none` where the session needs no guest.
        session: `_target_` names the session's class; it is called with the host, if there is one, and these arguments.
        console: `pty`, or `screen`: the console of each QEMU machine also in a detached screen session that has its name.
        qemu: For `host: qemu`; `genode` and `board` are for the others.
        reset: `taskset` or `machine`: when a guest goes back to its booted snapshot.
        policy: How patient they are.
        disturbance: For `clock: host`: limits beyond which a measurement is repeated.
        admission: Memory and disk that the run leaves to others.
        network: What they are connected to.
        cluster: Which computers they are on; `limit` is then that of one computer.
    """

    count: int = 1
    limit: int = 7
    host: str = "qemu"
    session: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "runner.sessions.mailbox.MailboxSession"}
    )
    reset: str = Reset.TASKSET.value
    console: str = Console.PTY.value
    qemu: QemuConf = field(default_factory=QemuConf)
    genode: GenodeConf = field(default_factory=GenodeConf)
    board: BoardConf = field(default_factory=BoardConf)
    policy: PolicyConf = field(default_factory=PolicyConf)
    disturbance: DisturbanceConf = field(default_factory=DisturbanceConf)
    admission: AdmissionConf = field(default_factory=AdmissionConf)
    network: NetworkConf = field(default_factory=NetworkConf)
    cluster: ClusterConf = field(default_factory=ClusterConf)


@dataclass
class RunnerConf:
    """The whole config.

    Attributes:
        tasksets: What is measured.
        repeat: How often each task set is measured; its job tables have to be equal where measurements are repeatable.
        reuse: Run folder, or SQLite file, of an earlier run: what it has measured is taken from there.
        monitors: Who is told.
        machines: Who measures.
        expected: What is expected to come out, to be printed beside what did.
        report: Whether `report.html` is made at the end.
        run_folder: Where the run's files go.
    """

    tasksets: Any = MISSING
    repeat: int = 1
    reuse: str | None = None
    monitors: dict[str, Any] = field(default_factory=dict)
    machines: MachinesConf = field(default_factory=MachinesConf)
    expected: ExpectedConf = field(default_factory=ExpectedConf)
    report: bool = True
    run_folder: str = "${hydra:runtime.output_dir}"


def register_schemas() -> None:
    """Make the schemas known to Hydra under the names that the files in `conf/` refer to."""
    store = ConfigStore.instance()
    store.store(name="base_config", node=RunnerConf)
    store.store(group="tasksets", name="base_uunifast", node=UUniFastConf)
    store.store(group="tasksets", name="base_explicit", node=ExplicitConf)
    store.store(group="tasksets", name="base_file", node=FileConf)
    store.store(group="tasksets", name="base_random", node=RandomConf)
    store.store(group="tasksets", name="base_boundary", node=BoundaryConf)
    store.store(group="tasksets", name="base_growing", node=GrowingConf)
    for name, schema in MONITORS.items():
        store.store(group="monitors", name=f"base_{name}", node={name: schema})
    store.store(group="machines", name="base_machines", node=MachinesConf)
    store.store(group="machines/network", name="base_network", node=NetworkConf)
    store.store(group="machines/cluster", name="base_cluster", node=ClusterConf)
