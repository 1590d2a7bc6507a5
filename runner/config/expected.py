"""`expected`: what an experiment's config says should come out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf

from runner.errors import UsageError
from runner.expectations import Bound, Expectations, ExpectedBreakdown, ExpectedSet, Unit
from runner.text.excerpt import excerpt


@dataclass
class ExpectedSetConf:
    """Of one task set; see `runner.expectations.ExpectedSet`."""

    worst_response: list[str] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    refused: list[int] | None = None


@dataclass
class ExpectedBreakdownConf:
    """Of breakdown utilizations; see `runner.expectations.ExpectedBreakdown`."""

    mean: dict[str, str] = field(default_factory=dict)
    at_least: dict[str, str] = field(default_factory=dict)


@dataclass
class ExpectedConf:
    """Of a run; see `runner.expectations.Expectations`."""

    sets: dict[str, ExpectedSetConf] = field(default_factory=dict)
    acceptance: dict[str, dict[str, str]] = field(default_factory=dict)
    breakdown: ExpectedBreakdownConf = field(default_factory=ExpectedBreakdownConf)
    slack: float | None = None
    overload: float | None = None


def to_expectations(config: DictConfig) -> Expectations:
    """Checked as far as values go.

    Raises:
        UsageError: a value is none that could come out; names the key.
    """
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)  # noqa: S101 - the schema holds it
    return Expectations(
        sets={str(name): _set(one, f"expected.sets.{name}") for name, one in values["sets"].items()},
        acceptance={
            str(curve): _points(points, f"expected.acceptance.{curve}")
            for curve, points in values["acceptance"].items()
        },
        breakdown=_breakdown(values["breakdown"], "expected.breakdown"),
        slack=_share(values["slack"], "expected.slack"),
        overload=_share(values["overload"], "expected.overload"),
    )


def _set(values: dict[str, list[str] | list[int] | None], key: str) -> ExpectedSet:
    worst = [
        Bound.parse(str(text), Unit.TIME, f"{key}.worst_response[{idx}]")
        for idx, text in enumerate(values["worst_response"] or ())
    ]
    refused = values["refused"]
    return ExpectedSet(
        worst_response=tuple(worst),
        missed=tuple(map(int, values["missed"] or ())),
        refused=None if refused is None else tuple(map(int, refused)),
    )


def _breakdown(values: dict[str, dict[str, str]], key: str) -> ExpectedBreakdown:
    mean = {}
    for n_tasks, text in values["mean"].items():
        at = f"{key}.mean.{n_tasks}"
        if not n_tasks.isdecimal():
            raise UsageError(f"{at}: no number of tasks", where=at, next_step='write "10": "0.909 ± 0.005"')
        mean[int(n_tasks)] = Bound.parse(text, Unit.SHARE, at)
    return ExpectedBreakdown(mean=mean, at_least=_points(values["at_least"], f"{key}.at_least"))


def _points(values: dict[str, str], key: str) -> dict[float, Bound]:
    return {_utilization(u, key): Bound.parse(text, Unit.SHARE, f"{key}.{u}") for u, text in values.items()}


def _share(value: float | None, key: str) -> float | None:
    if value is None or (math.isfinite(value) and value >= 0):
        return value
    raise UsageError(
        f"{key} is {value:g}, which is no share", where=key, next_step="write 0.05 for five per cent, or null"
    )


def _utilization(text: object, key: str) -> float:
    try:
        return round(float(str(text)), 6)
    except ValueError:
        raise UsageError(
            f"{key}.{excerpt(text)[1:-1]} is no utilization",
            where=f"{key}.{excerpt(text)[1:-1]}",
            next_step='write points like "0.80": "0.999"',
        ) from None
