"""Whether a run on the host's clock was disturbed too much to be believed. Pure: the figures come from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from runner.events import Disturbance, Validity
from runner.units import NS_PER_MS

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class ClockPair:
    """The guest's clock and this computer's, read at the same time as far as can be told; both CLOCK_MONOTONIC.

    Attributes:
        guest_ns: What the guest's clock showed ...
        host_ns: ... when this computer's showed this,
        uncertainty_ns: give or take so much.
    """

    guest_ns: int
    host_ns: int
    uncertainty_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DisturbanceLimits:
    """How much of each disturbance a run may suffer: a fixed part, and beyond it millionths of the run's duration.

    The defaults tell a computer that has a CPU to spare from one that has not. They were measured with emulated guests (TCG) at
    utilization 0.5, in runs of 1 and 2 s on a virtual computer of two CPUs. Where nothing is virtual, they can be tighter.

    Attributes:
        steal_fixed_ns: Two ticks of the kernel's count: less may be nothing but rounding.
        steal_ppm: What is stolen is missing in the middle of a job. Seen: 0 to 20 ms a second in good times of the hypervisor's, 20 to
            130 ms in bad ones, which doubled the worst response with nobody else on this computer.
        sched_delay_fixed_ns: A few time slices of others, which a short run may have to wait for by chance.
        sched_delay_ppm: Even without load a wake-up takes 20 to 50 µs, and an emulated guest wakes threads 1,000 to 3,000 times a
            second. Seen: 20,000 to 80,000 with no CPU or one busy otherwise, 180,000 to 1,200,000 with both.
        clock_drift_fixed_ns: What two readings of the guest's clock can be wrong by: 0.7 to 2.9 ms in sum, up to 7 with both CPUs busy.
        clock_drift_ppm: Seen of guests that keep time: 23 at most. NTP slews CLOCK_MONOTONIC of this computer by up to 500 while it
            catches up, which a guest that counts a processor's cycles does not follow.
    """

    steal_fixed_ns: int = 20 * NS_PER_MS
    steal_ppm: int = 1_000
    sched_delay_fixed_ns: int = 10 * NS_PER_MS
    sched_delay_ppm: int = 100_000
    clock_drift_fixed_ns: int = 3 * NS_PER_MS
    clock_drift_ppm: int = 100

    def steal_ns(self, duration_ns: int) -> int:
        """The most that a run of that duration may lose to the hypervisor below."""
        return self.steal_fixed_ns + duration_ns * self.steal_ppm // _MILLION

    def sched_delay_ns(self, duration_ns: int) -> int:
        """The most that QEMU's threads may wait for a CPU."""
        return self.sched_delay_fixed_ns + duration_ns * self.sched_delay_ppm // _MILLION

    def clock_drift_ns(self, duration_ns: int) -> int:
        """The most that the guest's clock may gain or lose."""
        return self.clock_drift_fixed_ns + duration_ns * self.clock_drift_ppm // _MILLION


def drift_ns(before: ClockPair, after: ClockPair, limits: DisturbanceLimits) -> int | None:
    """What the guest's clock gained (negative: lost) against this computer's between two readings; it must have run throughout.

    None when the readings are more uncertain than the limit, and for that cannot tell whether it was kept.
    """
    host_elapsed_ns = after.host_ns - before.host_ns
    gained_ns = after.guest_ns - before.guest_ns - host_elapsed_ns
    uncertainty_ns = before.uncertainty_ns + after.uncertainty_ns
    limit_ns = limits.clock_drift_ns(host_elapsed_ns)
    if uncertainty_ns > limit_ns and abs(gained_ns) <= limit_ns + uncertainty_ns:
        return None
    return gained_ns


def verdict(disturbance: Disturbance, duration_ns: int, limits: DisturbanceLimits) -> tuple[Validity, str]:
    """Judge a run.

    A figure that is not known breaks no limit, but a run of which nothing is known was not shown to be undisturbed.

    Args:
        duration_ns: From before the first figure was read until after the last.

    Returns:
        UNDISTURBED or DISTURBED, and for people every limit that was broken, with its figure; '' if none was.
    """
    judged = (
        ("steal time", disturbance.steal_ns, limits.steal_ns(duration_ns)),
        ("waits of QEMU's threads for a CPU", disturbance.sched_delay_ns, limits.sched_delay_ns(duration_ns)),
        ("drift of the guest's clock", disturbance.clock_drift_ns, limits.clock_drift_ns(duration_ns)),
    )
    if all(ns is None for _, ns, _ in judged):
        return Validity.DISTURBED, "nothing is known of what disturbed it"
    broken = [
        f"{what} {ns / NS_PER_MS:.3f} ms (limit {limit_ns / NS_PER_MS:.3f} ms)"
        for what, ns, limit_ns in judged
        if ns is not None and abs(ns) > limit_ns
    ]
    return (Validity.DISTURBED, "; ".join(broken)) if broken else (Validity.UNDISTURBED, "")
