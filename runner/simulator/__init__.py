"""What an ideal processor does with a task set: a deterministic, event-driven simulation that needs no guest.

One processor, no overheads, the rules of Linux and of `docs/task-loader.md`:

- SCHED_DEADLINE runs before FIFO and RR, these before OTHER. SCHED_DEADLINE is EDF by release + D, equal deadlines by task index.
- Tasks of one rank run in the order in which they woke up, at the same instant by task index. A preempted task keeps its place,
  and so does one that goes on at once with a job released meanwhile. RR goes to the end of its rank after every 100 ms.
- A job of a task with release jitter arrives after its release, when `runner.model.arrival` says; deadline and overrun policy count
  from the release.
- OTHER is first come, first served: the fair shares of the kernel are not modelled.
- A SCHED_DEADLINE task is throttled only where C exceeds its budget Q: after each Q until its next server period.
- Of things that happen at one instant: a job finishes before it could be killed; it is killed for its critical time before
  the overrun policy, and by that before the end of the set. What would be released when the set ends is not released.
"""

from runner.simulator.admission import admitted
from runner.simulator.simulation import Simulation

#: Raised whenever the same task set comes to give another job table.
SIMULATOR_VERSION = 1

__all__ = ["SIMULATOR_VERSION", "Simulation", "admitted"]
