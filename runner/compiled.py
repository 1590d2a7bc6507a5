"""Loops over numbers at the speed of C, by Numba: compiled when they are first called, and kept for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from runner.errors import HostError

try:
    import numba
except ImportError as exc:
    raise HostError(
        f"many task sets at once need the package numba: {exc}",
        next_step="pip install 'rtfleet[arrays]'; one by one they need nothing",
    ) from exc

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled for the types that it is called with.

    What is kept lies beside the source or, where nobody may write there, in the user's cache folder (`NUMBA_CACHE_DIR` names another);
    without any, each process compiles anew. It is made anew when its own file changes, not when one changes that it calls into: a
    file's loops call each other alone. Whole numbers are those of the processor: no overflow is noticed. Floats are as Python has them,
    operation by operation, powers by the same C library.
    """
    try:
        return cast("Callable[P, R]", numba.njit(cache=True)(function))
    except RuntimeError:  # nowhere to keep it
        return cast("Callable[P, R]", numba.njit()(function))
