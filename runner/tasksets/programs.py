"""The original's programs as workloads of random tasks, each with the range of sizes that the original drew from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from runner.tasksets.stream import Uniform, one_of

SPIN = "spin"
#: One of the others for each task, all alike.
MIXED = "mixed"
#: Program -> base and range of exponents of its `arg1`; None: it takes none that matters.
SIZES: Mapping[str, tuple[int, range] | None] = MappingProxyType(
    {
        "hey": None,
        "pi": (2, range(13, 22)),
        "tumatmul": (2, range(12, 20)),
        "cond_mod": (3, range(25, 31)),
    }
)
WORKLOADS = (SPIN, *SIZES, MIXED)


def draw_program(workload: str, uniform: Uniform) -> tuple[str, dict[str, int]]:
    """The program of one task, and its arguments."""
    names = list(SIZES)
    name = names[one_of(len(names), uniform)] if workload == MIXED else workload
    size = SIZES[name]
    if size is None:
        return name, {}
    base, exponents = size
    return name, {"arg1": base ** exponents[one_of(len(exponents), uniform)]}
