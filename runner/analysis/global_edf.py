"""Global EDF on several equal processors: sufficient tests, and how late a job can be."""

from __future__ import annotations

from fractions import Fraction

from runner.analysis.sporadic import Tasks


def densities(tasks: Tasks) -> list[Fraction]:
    """C/min(D, T) of each task."""
    return [Fraction(task.wcet, min(task.deadline, task.period)) for task in tasks]


def gfb_margin(tasks: Tasks, n_cpus: int) -> Fraction:
    """m − (m − 1)δ_max − Σδ: schedulable where it is not negative and no density exceeds 1 (Goossens, Funk and Baruah 2003)."""
    shares = densities(tasks)
    return n_cpus - (n_cpus - 1) * max(shares) - sum(shares)


def gfb(tasks: Tasks, n_cpus: int) -> bool:
    """Whether the density test passes."""
    return max(densities(tasks)) <= 1 and gfb_margin(tasks, n_cpus) >= 0


def bcl(tasks: Tasks, n_cpus: int) -> bool:
    """Bertogna, Cirinei and Lipari (2005), for D ≤ T: schedulable where for every task k the others cannot keep all processors busy
    for longer than its slack: Σ min(W_i, D_k − C_k) < m(D_k − C_k), or equal and some 0 < W_i ≤ D_k − C_k.
    """
    for k, task in enumerate(tasks):
        slack = task.deadline - task.wcet
        if slack < 0:
            return False
        works = [_work(tasks, i, task.deadline) for i in range(len(tasks)) if i != k]
        busy, room = sum(min(work, slack) for work in works), n_cpus * slack
        if busy > room or (busy == room and not any(0 < work <= slack for work in works)):
            return False
    return True


def _work(tasks: Tasks, idx: int, length: int) -> int:
    """What a task can do at most in an interval that ends with one of its deadlines, as long as another task's deadline."""
    cost, period, deadline, *_ = tasks[idx]
    n_whole = max(0, (length - deadline) // period + 1)
    return n_whole * cost + min(cost, max(0, length - n_whole * period))


def tardiness_bound(tasks: Tasks, n_cpus: int) -> int | None:
    """How long after its deadline a job ends at most, D = T, rounded up; None where U > m or a task alone needs more than a processor.

    ((m − 1)C_max − C_min)/(m − (m − 2)U_max) + C_max: Devi and Anderson (2005), as in the kernel's sched-deadline documentation.
    """
    shares = [Fraction(task.wcet, task.period) for task in tasks]
    if sum(shares) > n_cpus or max(shares) > 1:
        return None
    costs = [task.wcet for task in tasks]
    waiting = max(0, (n_cpus - 1) * max(costs) - min(costs))
    bound = waiting / (n_cpus - (n_cpus - 2) * max(shares)) + max(costs)
    return -(-bound.numerator // bound.denominator)
