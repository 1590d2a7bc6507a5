"""Numbers with a given sum and bounds of each its own: ConvolutionalFixedSum (Griffin and Davis 2025), by the package of that name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.errors import HostError, UsageError
from runner.tasksets.stream import Uniform

# What `cfsa` of convolutionalfixedsum copes with; its numerical twin draws from Python's one global stream, which cannot be seeded per set.
MAX_CONVOLUTIONAL_TASKS = 15
_MAX_DRAWS = 100
_TOLERANCE = 1e-6


def convolutionalfixedsum(
    total: float, bounds: Sequence[tuple[float, float]], uniform: Uniform
) -> list[float]:
    """One number within each of the bounds, with the given sum, uniform over all: ConvolutionalFixedSum.

    What the package returns is checked, and drawn again if it is none of these.

    Raises:
        HostError: the package is not installed.
        UsageError: it did not come to a result.
    """
    try:
        # late import: an extra of its own, with compiled code; only who asks for it needs it
        from convolutionalfixedsum.cfsa import CFSAConfig, CFSAError, cfsa
    except ImportError as exc:
        raise HostError(
            f"shares: convolutionalfixedsum needs the package of that name: {exc}",
            where="shares",
            next_step="pip install 'rtfleet[convolutionalfixedsum]', or choose shares: randfixedsum where all tasks have the same bounds",
        ) from exc
    # Counted from the lower bounds: with others than 0 its solver often gives up, and moving all along changes no distribution.
    spans = [high - low for low, high in bounds]
    free = total - math.fsum(low for low, _ in bounds)
    # What the package does not survive: one number, and no room for any.
    if len(bounds) == 1:
        return [total]
    for side, is_full in ((0, free <= 0), (1, free >= math.fsum(spans))):
        if is_full:
            return [bound[side] for bound in bounds]
    for _ in range(_MAX_DRAWS):
        seed = 1 + int(uniform() * ((1 << 53) - 1))  # it takes 0 for none
        try:
            parts = [
                float(part)
                for part in cfsa(len(bounds), free, [0.0] * len(bounds), spans, CFSAConfig(seed=seed))
            ]
        except CFSAError:
            continue
        off = max(max(-part, part - span) for part, span in zip(parts, spans, strict=True))
        if max(off, abs(math.fsum(parts) - free)) <= _TOLERANCE:
            return [min(high, max(low, low + part)) for (low, high), part in zip(bounds, parts, strict=True)]
    raise UsageError(
        f"shares: convolutionalfixedsum does not come to numbers within the bounds whose sum is {total:g}",
        where="shares",
        next_step="choose a sum further from the least and the most that the bounds allow, or shares: randfixedsum",
    )
