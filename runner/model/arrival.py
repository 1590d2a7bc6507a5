"""When a job can first run: its release, delayed by its task's release jitter."""

from __future__ import annotations

from runner.model.task import Task

_WORD = (1 << 64) - 1


def arrival_ns(task: Task, task_idx: int, job_idx: int) -> int:
    """When a job can first run, after the start instant: its release, and up to `jitter_ns` later.

    The delay is uniform over the jobs, and always the same for the same places: the upper half of (J + 1) · h, h being the 64 bits
    that splitmix64 (Steele, Lea and Flood 2014) makes of 2^32 · `task_idx` + `job_idx`.
    """
    if not task.jitter_ns:
        return task.release_ns(job_idx)
    return task.release_ns(job_idx) + ((task.jitter_ns + 1) * _mixed((task_idx << 32) + job_idx) >> 64)


def _mixed(number: int) -> int:
    """64 bits that look random, of a number: one step of splitmix64."""
    word = (number + 1) * 0x9E3779B97F4A7C15 & _WORD
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31
