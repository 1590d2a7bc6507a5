"""Schedulability analysis: what theory says of a task set, exactly, in integer nanoseconds, and within bounded work.

`analyse(taskset)` decides which tests apply to a set and what each of them proves for it; the modules below hold one family of tests
each, over plain `SporadicTask`s; `arrays` holds the same tests over many sets at once. See `docs/analysis.md`.
"""

from runner.analysis.applicable import CHEAP_TESTS, TESTS, analyse
from runner.analysis.sporadic import SporadicTask
from runner.analysis.verdict import Exactness, Finding, Verdict

__all__ = ["CHEAP_TESTS", "TESTS", "Exactness", "Finding", "SporadicTask", "Verdict", "analyse"]
