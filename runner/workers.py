"""The workers of a run that has a cluster, each told what its machines are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from runner.assembly import kind_of
from runner.cluster.agent import Setup
from runner.cluster.crew import Crew
from runner.cluster.pool import Equipment, pool
from runner.config.plan import RunPlan
from runner.paths import RunPaths
from runner.qemu.image import GuestImage


@contextmanager
def workers(plan: RunPlan, paths: RunPaths) -> Iterator[Crew | None]:
    """The workers of a cluster as long as the block lasts; None: there is none."""
    cluster, spec = plan.cluster, plan.qemu
    if cluster is None:
        yield None
        return
    image = None
    if spec is not None:
        image = GuestImage.load(spec.image, arch=spec.arch) if spec.image else GuestImage.current(spec.arch)
    # What workers need of the plan: no source, no monitor, nothing that only this computer has.
    make_kind = partial(kind_of, replace(plan, tasksets=None, monitors={}, cluster=None, reuse=None))

    def setup(worker: str, capacity: int | None) -> Setup:
        return Setup(
            worker=worker,
            capacity=cluster.per_computer if capacity is None else capacity,
            make_kind=make_kind,
            reserves=plan.reserves,
            folder=paths.folder.absolute(),
            silence_s=cluster.silence_s,
            image=None if image is None else (image.identity, image.arch, image.folder.name),
        )

    crew = Crew(
        per_computer=cluster.per_computer,
        patience_s=cluster.patience_s,
        checked_share=cluster.checked_share,
    )
    equipment = Equipment(
        setup=setup,
        guests_per_worker=cluster.guests_per_worker,
        image=image,
        answer_s=cluster.answer_s,
    )
    with pool(cluster.make, crew, equipment, paths.folder / "dask"):
        yield crew
