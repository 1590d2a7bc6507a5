"""Files that the program itself has written, read again after somebody else, a crash or a bad disk had them."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from runner.check import lines_of
from runner.config.resuming import complete_code, fact_changes, read_manifest, refuse_changes
from runner.data.audit import audit
from runner.data.parquet import write_parquet
from runner.data.progress import read_progress
from runner.data.reuse import EarlierRun
from runner.errors import Fault, GuestDied, HostError, RunnerError, UsageError
from runner.events import EndEvent, StartEvent, TaskDoneEvent, Validity
from runner.exit_codes import ExitCode
from runner.faults.incidents import Incident
from runner.faults.recovery import Recovery
from runner.monitors.sqlite import SQLiteMonitor
from runner.qemu.console_link import LINK_NAME, ConsoleLink, read_link
from runner.qemu.image import METADATA_NAME, GuestImage
from runner.qemu.probe import remembered
from runner.qemu.saved_state import loadable
from runner.qemu.snapshot import Snapshot
from runner.submission import Submission
from runner.why import __main__ as why
from tests.monitor_samples import MS, failed, good, run, taskset
from tests.mutations.kind import Kind
from tests.mutations.mutators import as_json, bombs, changed_bytes, changed_tokens, changed_value
from tests.test_image import make_image
from tests.test_qemu_saved_state import HEAD, TAIL, WRITTEN, section

_EXACT = replace(good(), validity=Validity.EXACT)
_IDENTITIES = [f"{number:032x}" for number in range(20)]


def _tell(monitor: SQLiteMonitor, number: int) -> None:
    which = replace(run(taskset(n=number)), identity=_IDENTITIES[number], run_id="", set_idx=number)
    monitor.__taskset_start__(which)
    for event in (
        StartEvent(10**9),
        TaskDoneEvent(0, 19 * MS),
        TaskDoneEvent(1, 20 * MS),
        EndEvent(20 * MS, stopped=False),
    ):
        monitor.__taskset_event__(which, event)
    if number % 7 == 6:
        monitor.__incident__(
            Incident(
                machine="qemu1",
                what="the guest died",
                recovery=Recovery.SNAPSHOT,
                submission=1,
                set_idx=number,
                repetition=1,
                attempt=1,
                fault=Fault.GUEST,
            )
        )
        monitor.__taskset_stop__(which, failed())
        monitor.__taskset_bad__(which, GuestDied("the guest died"))
    else:
        monitor.__taskset_finish__(which, _EXACT)
    monitor.idle()


class ResultDatabase(Kind):
    """results.sqlite and its write-ahead log, torn, cut or with other bits, for every one who opens it."""

    name = "databases"
    share = 50
    memory_mib: ClassVar[int] = 512

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        path = scratch / "made.sqlite"
        monitor = SQLiteMonitor(path)
        monitor.open()
        monitor.__submission__(Submission(number=1, source="Twenty", n_total=20))
        for number in range(10):
            _tell(monitor, number)
        self._specimens = [(path.read_bytes(), Path(f"{path}-wal").read_bytes())]
        monitor.close()
        monitor.open()
        for number in range(10, 20):
            _tell(monitor, number)
        self._specimens.append((path.read_bytes(), Path(f"{path}-wal").read_bytes()))
        monitor.close()
        self._specimens.append((path.read_bytes(), b""))

    def make(self, chance: Random) -> bytes:
        main, log = chance.choice(self._specimens)
        others = [one for pair in self._specimens for one in pair if one]
        if log and chance.random() < 0.5:
            log = _torn(log, chance, others)
        else:
            main = _torn(main, chance, others)
        return struct.pack("<BI", chance.randrange(8), len(main)) + main + log

    def feed(self, data: bytes) -> str:
        how, n_bytes = struct.unpack_from("<BI", data)
        folder = self.scratch / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / "results.sqlite"
        path.write_bytes(data[5 : 5 + n_bytes])
        if log := data[5 + n_bytes :]:
            Path(f"{path}-wal").write_bytes(log)
        if how in (0, 1):
            with EarlierRun(folder) as earlier:
                found = [earlier.find(identity) for identity in _IDENTITIES]
            for result in found:
                assert result is None or result.table_sha256 == _EXACT.table_sha256
        elif how == 2:
            write_parquet(path, folder / "parquet")
        elif how == 3:
            judged = audit(path)
            lines_of(judged)
            return "sound" if not judged.violations else "not sound"
        elif how == 4:
            self._gone_on_with(path)
        elif how in (5, 6):
            subject = ((), ("#3",), ("#6",), ("qemu1",))[n_bytes % 4]
            code = why.main([str(folder), *subject, *["--json"] * (how == 6)])
            if code != ExitCode.OK:
                assert code in (ExitCode.USAGE, ExitCode.HOST)
                raise RunnerError("refused by the command")
        else:
            self._written_on(path)
        return "accepted"

    def _gone_on_with(self, path: Path) -> None:
        progress = read_progress(path)
        if progress is not None:
            progress.check_repeat(1)
            for set_idx in range(21):
                progress.known(set_idx)
            list(progress.past())

    def _written_on(self, path: Path) -> None:
        monitor = SQLiteMonitor(path)
        monitor.open()
        refused: list[RunnerError] = []
        try:
            for number in (0, 19):
                _tell(monitor, number)
        except RunnerError as exc:
            refused.append(exc)
        try:
            monitor.close()
        except RunnerError as exc:
            refused.append(exc)
        if refused:
            raise refused[0]


def _torn(data: bytes, chance: Random, others: list[bytes]) -> bytes:
    """As disks, crashes and people do it: pages lost or of another time, zeros, a cut, flipped bits."""
    torn = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 20))):
        page = 4096 * chance.randrange(max(1, len(torn) // 4096))
        match chance.randrange(7):
            case 0:
                del torn[chance.randrange(len(torn) + 1) :]
            case 1:
                torn[page : page + 4096] = bytes(4096)
            case 2:
                other = chance.choice(others)
                at = 4096 * chance.randrange(max(1, len(other) // 4096))
                torn[page : page + 4096] = other[at : at + 4096]
            case 3:
                at = chance.randrange(100)
                torn[at : at + 1] = chance.randbytes(1)
            case 4:
                return changed_bytes(bytes(torn), chance, others)
            case _ if torn:
                torn[chance.randrange(len(torn))] ^= 1 << chance.randrange(8)
    return bytes(torn)


class JsonFile(Kind):
    """Image's description, snapshot's seal, console's link, acceleration's probe, run's manifest."""

    name = "json"
    share = 80
    refusals = (HostError, UsageError, ValueError)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        metadata = make_image(scratch / "image")
        snapshot = Snapshot(scratch / "snapshot")
        snapshot.folder.mkdir()
        snapshot.ram.write_bytes(b"ram")
        snapshot.state.write_bytes(b"state")
        snapshot.put_seal()
        self._snapshot = snapshot
        link = asdict(ConsoleLink("/dev/pts/5", 1, 7))
        probe = {"accel": "kvm", "reason": "KVM booted the guest"}
        guest = {"settings": {"memory_mib": 128, "reset": "taskset"}, "image_sha256": "d", "qemu": "7.2"}
        self._manifest: dict[str, Any] = {
            "packages": {"rtfleet": "0.1"},
            "simulator": 1,
            "guest": guest,
            "seed": 1,
            "ended": {"exit_code": 0},
        }
        seal = json.loads(snapshot.seal.read_text())
        self._values: list[Any] = [json.loads(metadata.to_json()), seal, link, probe, self._manifest]
        (scratch / "machine").mkdir()

    def make(self, chance: Random) -> bytes:
        which = chance.randrange(len(self._values))
        data = as_json(self._values[which])
        match chance.randrange(8):
            case 0:
                data = bombs(chance)
            case 1:
                data = changed_bytes(data, chance, [as_json(value) for value in self._values])
            case 2:
                words = ("null", "1e999", "NaN", "Infinity", "-", "0x1", "true", '"', "\\ud800")
                data = changed_tokens(data.decode(), chance, words).encode("utf-8", "surrogatepass")
            case _:
                data = as_json(changed_value(json.loads(json.dumps(self._values[which])), chance))
        return bytes([which]) + data

    def feed(self, data: bytes) -> str:
        which, data = data[0], data[1:]
        match which:
            case 0:
                (self.scratch / "image" / METADATA_NAME).write_bytes(data)
                assert len(GuestImage.load(self.scratch / "image").identity) == 16
            case 1:
                self._snapshot.seal.write_bytes(data)
                return "sealed" if self._snapshot.sealed() else "passed over"
            case 2:
                (self.scratch / "machine" / LINK_NAME).write_bytes(data)
                read_link(self.scratch / "machine")
            case 4:
                path = self.scratch / "manifest.json"
                path.write_bytes(data)
                manifest = read_manifest(path)
                complete_code(manifest)
                if changes := fact_changes(manifest or {}, self._manifest):
                    refuse_changes(self.scratch, changes)
            case _:
                path = self.scratch / "probe.json"
                path.write_bytes(data)
                return "remembered" if remembered(path) is not None else "passed over"
        return "accepted"


class SavedState(Kind):
    """A guest's device state, which is corrected where it is understood, and left alone where not."""

    name = "states"
    share = 40
    memory_mib = 64

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        records = [("virt.flash0", number << 12, b"\0") for number in range(50)]
        records += [("rom", 1 << 20, bytes(range(256)) * 16), ("virt.flash1", 0, b"\0")]
        self._specimens = [
            WRITTEN + section(2, records) + section(3, []) + TAIL,
            HEAD + section(2, records[:3]) + section(2, records[40:]) + section(3, records[:1]) + TAIL,
        ]

    def make(self, chance: Random) -> bytes:
        state = bytearray(chance.choice(self._specimens))
        if chance.random() < 0.5:
            at = 8 * chance.randrange(len(state) // 8)
            number = chance.choice((0, 1, 2**63, 2**64 - 1, 1 << 40, chance.getrandbits(64)))
            state[at : at + 8] = number.to_bytes(8, "big")
        return changed_bytes(bytes(state), chance, self._specimens) if chance.random() < 0.8 else bytes(state)

    def feed(self, data: bytes) -> str:
        corrected = loadable(data)
        assert len(corrected) <= len(data)
        return "as it was" if corrected == data else "corrected"
