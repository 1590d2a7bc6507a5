"""Simulate a SimSo file with SimSo itself: `python -W ignore -m tests.simso_responses FILE` prints each task's responses in ns, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any


def responses_ns(path: str) -> list[list[int | None]]:
    """Of each task's jobs in the order of their releases; None where one did not end."""
    from simso.configuration import Configuration  # late import: it warns, which tests forbid
    from simso.core import Model

    configuration: Any = Configuration(path)
    configuration.check_all()
    model: Any = Model(configuration)
    model.run_model()
    per_ms = configuration.cycles_per_ms
    return [
        [
            None if job.response_time is None else round(job.response_time * 1_000_000 / per_ms)
            for job in results.jobs
        ]
        for results in model.results.tasks.values()
    ]


if __name__ == "__main__":
    print(json.dumps(responses_ns(sys.argv[1])))
