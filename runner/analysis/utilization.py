"""Tests that look at utilizations only. Exact: no verdict hangs on a rounded number."""

from __future__ import annotations

import math

from runner.analysis.sporadic import Tasks, load

# Sums and powers of up to 64 numbers below 2^63 are off by less than 10^-12 of their value; nearer than this to the bound, integers decide.
_GUARD = 1e-9


def liu_layland(tasks: Tasks) -> bool:
    """U ≤ n(2^(1/n) − 1): schedulable by rate-monotonic priorities where D ≥ T (Liu and Layland 1973).

    Decided as (1 + U/n)^n ≤ 2, which needs no root.
    """
    n = len(tasks)
    power = (1.0 + sum(task.wcet / task.period for task in tasks) / n) ** n
    if abs(power - 2.0) > _GUARD * power:
        return power < 2.0
    numerator, denominator = load(tasks)
    base = denominator * n
    return bool((base + numerator) ** n <= 2 * base**n)


def liu_layland_bound(n_tasks: int) -> float:
    """n(2^(1/n) − 1), for margins and plots."""
    return n_tasks * math.expm1(math.log(2) / n_tasks)


def hyperbolic(tasks: Tasks) -> bool:
    """∏(U_i + 1) ≤ 2: schedulable by rate-monotonic priorities where D ≥ T (Bini, Buttazzo and Buttazzo 2003)."""
    product = hyperbolic_product(tasks)
    if abs(product - 2.0) > _GUARD * product:
        return product < 2.0
    return math.prod(task.wcet + task.period for task in tasks) <= 2 * math.prod(
        task.period for task in tasks
    )


def hyperbolic_product(tasks: Tasks) -> float:
    """∏(U_i + 1), rounded."""
    return math.prod(task.wcet / task.period + 1.0 for task in tasks)


def exceeds(tasks: Tasks, n_cpus: int = 1) -> bool:
    """Whether the tasks ask for more than the processors have: U > m, after which nothing helps."""
    approximate = sum(task.wcet / task.period for task in tasks)
    if abs(approximate - n_cpus) > _GUARD * n_cpus:
        return approximate > n_cpus
    numerator, denominator = load(tasks)
    return numerator > n_cpus * denominator
