"""How much this computer kept a QEMU process from running, as its kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runner.errors import UsageError
from runner.units import NS_PER_S

# Where `steal` stands in a line of /proc/stat: after the name, user, nice, system, idle, iowait, irq and softirq.
_STEAL_FIELD = 8


class NoiseMeter:
    """What was taken from one process between two instants; any number of times.

    Guarantees: reads a few files of /proc and nothing else, in 0.1 ms for each of `begin` and `end` (measured: QEMU's four
    threads, two CPUs; 0.3 ms with both loaded), and never fails because the process has ended.
    Threads: one at a time.

    Args:
        pid: The process, of whose threads all count.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ns_per_tick = NS_PER_S // os.sysconf("SC_CLK_TCK")
        self._begun: tuple[int | None, Mapping[str, int] | None] | None = None

    def begin(self) -> None:
        """What comes from here on counts."""
        self._begun = _steal_ticks(), _waits_ns(self._pid)

    def end(self) -> tuple[int | None, int | None]:
        """What came since `begin`: nanoseconds of steal time and of scheduling delay, None where the kernel does not tell.

        Steal time is what the hypervisor below this computer took from all its CPUs, whoever ran on them: an upper bound.
        The kernel tells it in clock ticks, 10 ms nearly everywhere, so a run can be given one tick more or less than it had.

        Scheduling delay is the time for which threads of the process could have run and waited for a CPU, summed over all
        of them, exact to the nanosecond. A wait counts once it is over. Threads that have ended meanwhile are left
        out: QEMU's virtual CPUs and its main loop live as long as the process.

        Raises:
            UsageError: without a `begin`.
        """
        if self._begun is None:
            raise UsageError(
                f"the noise of process {self._pid} was asked for before it was measured",
                next_step="call begin() first",
            )
        ticks_before, waits_before = self._begun
        ticks, waits = _steal_ticks(), _waits_ns(self._pid)
        # A hypervisor that moved this computer elsewhere may have begun to count anew.
        steal_ns = (
            None
            if ticks is None or ticks_before is None
            else max(0, ticks - ticks_before) * self._ns_per_tick
        )
        delay_ns = (
            None
            if waits is None or waits_before is None
            else sum(max(0, ns - waits_before.get(thread, 0)) for thread, ns in waits.items())
        )
        return steal_ns, delay_ns


def _steal_ticks() -> int | None:
    """Steal time since boot, of all CPUs."""
    try:
        with Path("/proc/stat").open("rb") as stat:
            fields = stat.readline().split()
    except OSError:  # a sandbox without it
        return None
    return int(fields[_STEAL_FIELD]) if len(fields) > _STEAL_FIELD else None


def _waits_ns(pid: int) -> Mapping[str, int] | None:
    """How long each thread has waited in run queues, by its id; None when the kernel counts nothing, or the process is gone."""
    folder = f"/proc/{pid}/task"
    waits = {}
    try:
        for thread in os.listdir(folder):
            try:
                # CPU time, wait, and how often it ran: https://docs.kernel.org/scheduler/sched-stats.html
                _, wait_ns, n_runs = Path(f"{folder}/{thread}/schedstat").read_bytes().split()
            except OSError:  # it ended, or the kernel was built without CONFIG_SCHED_INFO
                continue
            if n_runs != b"0":  # a kernel that could count, but was told not to, says `0 0 0` of every thread
                waits[thread] = int(wait_ns)
    except OSError:
        return None
    return waits or None
