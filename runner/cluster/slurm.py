"""Workers that are jobs of SLURM. The home of `dask_jobqueue`."""

from __future__ import annotations

import subprocess
from typing import Any

from runner.cluster.pool import END_S, missing
from runner.errors import HostError


def slurm_cluster(n_jobs: int, **arguments: Any) -> object:  # noqa: ANN401 - those of SLURMCluster
    """A cluster with that many jobs submitted.

    Args:
        arguments: Of `dask_jobqueue.SLURMCluster`: cores, memory, walltime, queue, account …

    Raises:
        UsageError: the extra is not installed.
        HostError: there is no SLURM here, or it does not take such a job; none was submitted then.
    """
    try:
        import dask_jobqueue  # late import: an extra
    except ImportError as exc:
        raise missing(exc) from exc
    library: Any = dask_jobqueue
    cluster = library.SLURMCluster(**arguments)
    try:
        _try_out(cluster.job_script())
    except BaseException:
        cluster.close(timeout=END_S)
        raise
    cluster.scale(jobs=n_jobs)
    return cluster


def _try_out(script: str) -> None:
    """Have SLURM refuse a job that it would refuse: what comes of those that are submitted, Dask does not tell."""
    try:
        subprocess.run(
            ["sbatch", "--test-only"], input=script, capture_output=True, text=True, timeout=END_S, check=True
        )
    except FileNotFoundError as exc:
        raise HostError(
            "there is no SLURM on this computer: no sbatch on the PATH",
            where="machines.cluster.dask",
            next_step="start the run where jobs are submitted; or choose another machines/cluster",
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise HostError(
            f"SLURM has not answered for {END_S:.0f} s",
            where="machines.cluster.dask",
            next_step="scontrol ping tells whether its controller is there",
        ) from exc
    except subprocess.CalledProcessError as exc:
        raise HostError(
            f"SLURM does not take such a job: {' '.join(exc.stderr.split())}",
            where="machines.cluster.dask",
            next_step="change the arguments beside _target_: queue, account, memory, cores, walltime",
        ) from exc
