"""Task sets that were handed in together, as everybody but their queue knows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One `add_job`.

    Attributes:
        number: From 1, in the order of submission; `Run.submission` refers to it.
        source: What yields its task sets: the name of a class.
        repeat: How often each set is measured.
        n_total: How many sets the source yields; None while that is not known.
        resumed: Where an earlier runner began it, the number that it has in the ledger.
    """

    number: int
    source: str
    repeat: int = 1
    n_total: int | None = None
    resumed: int | None = None
