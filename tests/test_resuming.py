"""What has changed since a run began, and what is stored of it: told, whatever values and files there are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from runner.config.record import RunRecord, read_record
from runner.config.resuming import config_changes, refuse_changes
from runner.errors import UsageError

HYDRA: dict[str, Any] = {
    "overrides": {"task": [], "hydra": []},
    "job": {"config_name": "config"},
    "runtime": {"cwd": "/", "config_sources": []},
}


@pytest.mark.parametrize(
    "value", [math.nan, 1 << 20_000, -(1 << 20_000), "", None, [], {}, 1.5], ids=range(8)
)
def test_equal_values_are_no_change(value: object) -> None:
    assert config_changes({"a": value}, {"a": value}) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (1, 1.0), (1 << 20_000, 1), (math.nan, None), ("1", 1)],
    ids=range(5),
)
def test_other_values_are_changes_that_can_be_shown(tmp_path: Path, one: object, other: object) -> None:
    changes = config_changes({"a": one}, {"a": other})
    assert changes.keys() == {"a"}
    with pytest.raises(UsageError, match="begun otherwise") as caught:
        refuse_changes(tmp_path, changes)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text", ["a: !!int ''", "a: &a [*a]", "[" * 500, "a: !!float ''", "\0", "7", "a: !!timestamp 'x'"]
)
def test_a_stored_config_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    RunRecord(hydra=HYDRA, config={}).write(tmp_path)
    assert read_record(tmp_path).config == {}
    (tmp_path / ".hydra" / "config.yaml").write_text(text)
    with pytest.raises(UsageError):
        read_record(tmp_path)
