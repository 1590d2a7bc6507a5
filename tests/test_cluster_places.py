"""Where workers can be: on a cluster that runs already, behind SSH, without the image; for SLURM see `test_slurm`."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.cluster.delivery import Delivery, send
from runner.errors import HostError
from runner.exit_codes import ExitCode
from runner.files.durable import replace_text
from runner.fleet import RunState
from runner.operator.control import Control, render
from runner.qemu.image import (
    FILE_NAMES,
    HOST_KEY_NAME,
    INITRD_NAME,
    KERNEL_NAME,
    METADATA_NAME,
    GuestImage,
    ImageMetadata,
)
from runner.why.__main__ import main as why
from tests.cli import ROOT, RUN_TIMEOUT_S, run_cli, started_cli
from tests.dask_processes import RunningCluster, running_cluster
from tests.fleet_samples import eventually
from tests.ssh_server import processes_with, ssh_server

SETS = ("machines=simulation", "machines.session.realtime_factor=8", "monitors=[sqlite,logging]")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path / "cluster") as one:
        yield one


def measured_by(run: Path) -> Counter[str]:
    """Worker -> task sets that it measured; each set was measured once."""
    with closing(sqlite3.connect(run / "results.sqlite")) as data:
        rows = data.execute(
            "SELECT taskset_id, json_extract(facts_json, '$.worker') FROM runs JOIN tasksets USING (taskset_id)"
            " WHERE outcome = 'completed' AND state = 'done'"
        ).fetchall()
    assert len({taskset_id for taskset_id, _ in rows}) == len(rows)
    return Counter(worker.rpartition("-")[0] for _, worker in rows)


def tables_of(run: Path) -> dict[str, str]:
    """Task set -> digest of its job table."""
    with closing(sqlite3.connect(run / "results.sqlite")) as data:
        return dict(data.execute("SELECT taskset_id, table_sha256 FROM runs").fetchall())


def n_done(run: Path) -> int:
    """As the run itself tells, while it goes on."""
    path = run / "status.json"
    return int(json.loads(path.read_text())["tasksets"]["done"]) if path.exists() else 0


def test_a_cluster_that_runs_is_used_and_left_as_it_was(tmp_path, cluster):
    cluster.join("first", n_guests=2)
    there = ("machines/cluster=scheduler", f"machines.cluster.dask.address={cluster.address}")
    many = (*SETS, *there, "machines.count=4")
    run = tmp_path / "run"
    with started_cli(tmp_path, *many, "tasksets.sets_per_utilization=10") as process:
        eventually(lambda: n_done(run) > 2, RUN_TIMEOUT_S)
        # So that it does not end before the other has joined.
        replace_text(run / "control.yaml", render(Control(4, RunState.PAUSE), 7))
        cluster.join("second", n_guests=2)
        eventually(lambda: "worker second-" in (run / "distributor.log").read_text(), RUN_TIMEOUT_S)
        replace_text(run / "control.yaml", render(Control(4, RunState.RUN), 7))
        _, error = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == ExitCode.OK, error
    by = measured_by(run)
    assert by.total() == 50
    assert by.keys() == {"first", "second"}
    assert not cluster.traces()
    assert sorted(cluster.workers) == ["first", "second"]
    again = run_cli(tmp_path, *many, "tasksets.sets_per_utilization=1", "hydra.run.dir=again")
    assert again.returncode == ExitCode.OK, again.stderr
    assert measured_by(tmp_path / "again").total() == 5
    assert not cluster.traces()
    assert not list(cluster.folder.glob("rtfleet-*"))


def test_workers_are_started_over_ssh_and_end_with_the_run(tmp_path):
    token = str(tmp_path)
    session = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "RTFLEET_TEST": token}
    with ssh_server(tmp_path / "ssh", session) as server:
        how = (
            f"port: {server.port}, client_keys: ['{server.client_key}'], known_hosts: '{server.known_hosts}'"
        )
        done = run_cli(
            tmp_path,
            *SETS,
            "machines/cluster=ssh",
            "machines.cluster.dask.hosts=[127.0.0.1,127.0.0.1]",
            f"+machines.cluster.dask.connect_options={{{how}}}",
            "+machines.cluster.dask.scheduler_options={host: 127.0.0.1}",
            "+machines.cluster.dask.worker_options.host=127.0.0.1",
            "machines.cluster.guests_per_worker=2",
            "machines.count=4",
            "tasksets.sets_per_utilization=8",
        )
        assert done.returncode == ExitCode.OK, done.stderr
        by = measured_by(tmp_path / "run")
        assert by.total() == 40
        eventually(lambda: not processes_with("RTFLEET_TEST", token), 30.0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a worker's computer, with nothing in it."""
    monkeypatch.setenv("RTFLEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images" / "amd64"


def parcel(folder: Path) -> GuestImage:
    """An image as it is laid out; no guest boots it."""
    folder.mkdir(parents=True)
    contents = {name: f"{name} ".encode() * 1000 for name in FILE_NAMES}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    metadata = ImageMetadata(
        arch="amd64",
        digest=hashlib.sha256(contents[KERNEL_NAME] + contents[INITRD_NAME]).hexdigest(),
        kernel_release="6.1",
        packages={},
        sources_sha256="",
        sizes_bytes={name: len(content) for name, content in contents.items()},
    )
    (folder / METADATA_NAME).write_text(metadata.to_json())
    return GuestImage.load(folder)


def test_an_image_arrives_whole_and_once(tmp_path, cache):
    image = parcel(tmp_path / "there")
    delivery = Delivery(image.identity, "amd64", "there")
    assert delivery.find() is None
    folder = delivery.finish(send(image, delivery.take))
    assert Delivery(image.identity, "amd64", "there").find() == folder
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == {
        one.name: one.read_bytes() for one in image.folder.iterdir()
    }
    assert {stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()} == {0o600}
    assert list(cache.iterdir()) == [folder]


def flip_a_bit(chunk: bytes) -> bytes:
    return bytes([chunk[0] ^ 1]) + chunk[1:]


def cut_off(chunk: bytes) -> bytes:
    return chunk[:-1]


def lose(chunk: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("name", [*FILE_NAMES, METADATA_NAME])
@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, lose])
def test_an_image_that_was_damaged_on_its_way_is_not_kept(tmp_path, cache, name, damage):
    image = parcel(tmp_path / "there")
    delivery = Delivery(image.identity, "amd64", "there")
    digests = send(image, lambda to, chunk: delivery.take(to, damage(chunk) if to == name else chunk))
    with pytest.raises(HostError, match=f"did not arrive whole: {name}"):
        delivery.finish(digests)
    assert not list(cache.iterdir())
    delivery.finish(send(image, delivery.take))
    assert delivery.find() is not None


def test_an_image_of_the_same_digest_and_other_keys_keeps_its_place(tmp_path, cache):
    image = parcel(tmp_path / "there")
    own = parcel(cache / "there")
    (own.folder / HOST_KEY_NAME).write_bytes(b"another key".ljust(own.metadata.sizes_bytes[HOST_KEY_NAME]))
    before = {one.name: one.read_bytes() for one in own.folder.iterdir()}
    delivery = Delivery(image.identity, "amd64", "there")
    assert delivery.find() is None
    assert delivery.finish(send(image, delivery.take)) == delivery.find() != own.folder
    assert {one.name: one.read_bytes() for one in own.folder.iterdir()} == before


def test_an_image_that_is_cut_off_in_the_cache_is_replaced(tmp_path, cache):
    image = parcel(tmp_path / "there")
    first, second = (Delivery(image.identity, "amd64", "there") for _ in range(2))
    folder = first.finish(send(image, first.take))
    (folder / INITRD_NAME).write_bytes(b"")
    assert second.find() is None
    digests = send(image, first.take)
    assert second.finish(send(image, second.take)) == folder == second.find()
    # And who comes second finds it there.
    assert first.finish(digests) == folder
    assert list(cache.iterdir()) == [folder]


@pytest.mark.guest
def test_guests_boot_an_image_that_their_worker_did_not_have(tmp_path, cluster, capsys):
    cluster.join("far", n_guests=1, env={"RTFLEET_CACHE": str(tmp_path / "far")})
    there = ("machines/cluster=scheduler", f"machines.cluster.dask.address={cluster.address}")
    few = ("machines=amd64", "tasksets.sets_per_utilization=1", "tasksets.utilizations=[0.5,0.8]")
    logs, tables = [], []
    for run in ("run", "again"):
        done = run_cli(tmp_path, *few, *there, "monitors=[sqlite,logging]", f"hydra.run.dir={run}")
        assert done.returncode == ExitCode.OK, done.stderr
        logs.append((tmp_path / run / "distributor.log").read_text())
        tables.append(tables_of(tmp_path / run))
    assert [log.count("has the image now") for log in logs] == [1, 0]
    assert len(tables[0]) == 2
    assert tables[0] == tables[1]
    image = GuestImage.current("amd64")
    assert [one.name for one in (tmp_path / "far" / "images" / "amd64").iterdir()] == [image.identity]
    (folder,) = (tmp_path / "run" / "workers").iterdir()
    assert why([str(tmp_path / "run"), f"{folder.name}.qemu1"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert f"{folder.name}.qemu1: 2 measured in 2 attempts" in told
    assert "its logs" not in told
