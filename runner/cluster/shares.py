"""How many of a fleet's machines each worker is to have. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where machines can be.

    Attributes:
        worker: Its name, unique in the cluster.
        computer: Where that worker is; several may be on one.
        capacity: Machines that it said it can hold; None: it said nothing, and its computer's bound is all there is.
    """

    worker: str
    computer: str
    capacity: int | None = None


def shares(n_machines: int, seats: Sequence[Seat], *, per_computer: int) -> dict[str, int]:
    """Machines of each worker, dealt out one by one, a round for each; fewer than asked for where there is no more room.

    Guarantees: no worker has more than its capacity, workers without one have together at most `per_computer` on a computer, and
    with one machine more or less only one worker's share changes.
    """
    dealt = {seat.worker: 0 for seat in seats}
    on: Counter[str] = Counter()
    n_left = n_machines
    while n_left > 0:
        before = n_left
        for seat in seats:
            open_ended = seat.capacity is None
            full = (
                on[seat.computer] >= per_computer
                if open_ended
                else dealt[seat.worker] >= (seat.capacity or 0)
            )
            if n_left > 0 and not full:
                dealt[seat.worker] += 1
                on[seat.computer] += open_ended
                n_left -= 1
        if n_left == before:
            break
    return dealt
