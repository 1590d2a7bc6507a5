"""Results in a MongoDB database: a collection per table, a document per row (the extra `mongodb`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from runner.data.batch import DATA_TABLES, Batch
from runner.data.schema import TASKSETS, Kind, Table
from runner.errors import ProtocolError, UsageError
from runner.monitors.batching import BatchingMonitor, StoreUnavailable
from runner.text.secrets import masked

_TIMEOUT_MS = 5_000
#: What a connection asks for, unless the address says otherwise.
_OPTIONS = {"serverSelectionTimeoutMS": _TIMEOUT_MS, "connectTimeoutMS": _TIMEOUT_MS, "w": "majority"}
_DUPLICATE_KEY = 11000


class MongoDBMonitor(BatchingMonitor):
    """Add every attempt to the collections `tasksets`, `tasks`, `analyses`, `analysis_tasks`, `runs`, `jobs` and `events`.

    Guarantees: a document's `_id` is its row's key, so that what is there already is not added again: not when a run is resumed, nor when
    a write was cut short. An attempt's `runs` document is written after its jobs: whoever begins there finds whole attempts. Where the
    server goes away the monitor is `blocked` and goes on when it is back. The address is shown without its password.

    Args:
        url: `mongodb://host/`; with a password in it from the environment: `${oc.env:RESULTS_URL}`. Writes are waited for as `w=majority`
            has it, unless the address says otherwise.
        database: Where the collections are.
        required, flush_interval_s, max_waiting_rows: As `BatchingMonitor`.

    Raises:
        UsageError: pymongo is not installed, or the address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        database: str = "rtfleet",
        required: bool = False,
        flush_interval_s: float = 1.0,
        max_waiting_rows: int = 2_000_000,
    ) -> None:
        super().__init__(
            required=required, flush_interval_s=flush_interval_s, max_waiting_rows=max_waiting_rows
        )
        try:
            import pymongo  # late import: an extra
        except ImportError as exc:
            raise UsageError("pymongo is not installed", next_step="pip install 'rtfleet[mongodb]'") from exc
        if not url.startswith(("mongodb://", "mongodb+srv://")):
            raise UsageError(
                "url is no address of a MongoDB server",
                where="url",
                next_step="write it as mongodb://host/; a password comes from the environment: ${oc.env:RESULTS_URL}",
            )
        self._pymongo = pymongo
        self._url = url
        self._name = database
        self._client: Any = None

    @property
    def place(self) -> str:
        return masked(self._url)

    def open_store(self) -> None:
        """Connect.

        Raises:
            UsageError: the address is none.
            StoreUnavailable: the server cannot be reached, or refuses.
        """
        errors = self._pymongo.errors
        client: Any = None
        # What is given beside the address would overrule it.
        said = {name.lower() for name, _ in parse_qsl(self._url.partition("?")[2])}
        options: dict[str, Any] = {
            name: value for name, value in _OPTIONS.items() if name.lower() not in said
        }
        try:
            client = self._pymongo.MongoClient(self._url, **options)
            client.admin.command("ping")
        except (errors.InvalidURI, errors.ConfigurationError) as exc:
            raise UsageError(f"url is no address of a MongoDB server: {exc}", where="url") from exc
        except errors.PyMongoError as exc:
            if client is not None:
                client.close()
            raise StoreUnavailable(masked(str(exc))) from exc
        self._client = client

    def write(self, batches: Sequence[Batch]) -> None:
        """Add what is not there, the documents of `runs` last.

        Raises:
            StoreUnavailable: the server is away, or has no room; some may be there, and are not added again.
            ProtocolError: a document does not fit.
        """
        errors = self._pymongo.errors
        database = self._client[self._name]
        try:
            for table in sorted(DATA_TABLES, key=lambda one: one.name == "runs"):
                self._add(database[table.name], documents(table, batches))
            for state, known in (("done", [None, "bad"]), ("bad", [None])):
                ids = [batch.taskset_id for batch in batches if batch.state == state]
                if ids:
                    which = {"_id": {"$in": ids}, "state": {"$in": known}}
                    database[TASKSETS.name].update_many(which, {"$set": {"state": state}})
        except (errors.DocumentTooLarge, errors.InvalidDocument, OverflowError) as exc:
            names = ", ".join(sorted({batch.taskset_id for batch in batches})[:3])
            raise ProtocolError(
                f"results of task set {names} do not fit into {self.place}: {exc}",
                next_step="correct the session that reported them",
            ) from exc
        except errors.PyMongoError as exc:
            raise StoreUnavailable(masked(str(exc))) from exc

    def _add(self, collection: Any, found: list[dict[str, Any]]) -> None:  # noqa: ANN401 - pymongo's, an extra
        """Those that are there already are refused by their keys, one by one: the others are added all the same."""
        if not found:
            return
        try:
            collection.insert_many(found, ordered=False)
        except self._pymongo.errors.BulkWriteError as exc:
            other = [one for one in exc.details["writeErrors"] if one["code"] != _DUPLICATE_KEY]
            if other or exc.details["writeConcernErrors"]:
                raise

    def close_store(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()
            self._client = None


def documents(table: Table, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """The rows of a table as documents; null stays null, truth values are such, `_id` is the key, its parts joined by `/`."""
    bools = {one.name for one in table.columns if one.kind is Kind.BOOL}
    found = []
    for batch in batches:
        for row in (*batch.of_set.get(table, ()), *batch.of_run.get(table, ())):
            one = {
                name: bool(value) if name in bools and value is not None else value
                for name, value in zip(table.names, row, strict=True)
            }
            found.append({"_id": "/".join(str(one[name]) for name in table.key), **one})
    return found
