"""Workers that are jobs of SLURM. The home of `dask_jobqueue`."""

from __future__ import annotations

from typing import Any

from runner.cluster.pool import missing


def slurm_cluster(n_jobs: int, **arguments: Any) -> object:  # noqa: ANN401 - those of SLURMCluster
    """A cluster with that many jobs submitted.

    Args:
        arguments: Of `dask_jobqueue.SLURMCluster`: cores, memory, walltime, queue, account …

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        import dask_jobqueue  # late import: an extra
    except ImportError as exc:
        raise missing(exc) from exc
    library: Any = dask_jobqueue
    cluster = library.SLURMCluster(**arguments)
    cluster.scale(jobs=n_jobs)
    return cluster
