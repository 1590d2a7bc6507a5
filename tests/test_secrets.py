"""Secrets are found wherever they stand, and nothing else is taken for one."""

from __future__ import annotations

import json
import logging
import string
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config.masking import Masking
from runner.errors import UsageError
from runner.text.secrets import literal_secrets, masked, masked_values, secret_values

#: Whatever a password may be made of; long enough not to stand in a text by chance.
SECRETS = st.text(string.ascii_letters + string.digits + "!%&*+-./:;<=>?@[]^_{}|~#$'\"\\", min_size=8).map(
    lambda text: f"Zq7{text}"
)
NAMES = st.sampled_from(
    ["password", "db_password", "PASSWORD", "apiToken", "secret", "api_key", "aws-access-key", "token"]
)
WORDS = st.text(string.ascii_lowercase + " ", max_size=20)
PLACES = {
    "a URI": lambda secret, name: f"mysql://user:{secret}@host:3306/db",
    "a URI without user": lambda secret, name: f"redis://:{secret}@host",
    "an assignment": lambda secret, name: f"{name}={secret}",
    "YAML": lambda secret, name: f"{name}: {secret}",
    "JSON": lambda secret, name: json.dumps({name: secret}),
    "Python": lambda secret, name: repr({name: secret}),
    "a reference's default": lambda secret, name: f"{name}=${{oc.env:NAME,{secret}}}",
}


@pytest.mark.parametrize("place", PLACES)
@given(secret=SECRETS, name=NAMES, before=WORDS, after=WORDS)
def test_no_secret_stays_in_a_text(place: str, secret: str, name: str, before: str, after: str) -> None:
    text = f"{before} {PLACES[place](secret, name)} {after}"
    hidden = masked(text)
    assert secret not in hidden
    assert hidden.startswith(before)
    assert hidden.endswith(after)
    assert masked(hidden) == hidden


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "mysql://user@host/db",
        "http://host:8080/path",
        "mysql://user:${oc.env:PW}@host",
        "mysql://${oc.env:USER}:${oc.env:PW}@host/db",
        "${oc.env:DB_URI}",
        "password: ${oc.env:PW}",
        "password=${oc.env:${name}_PW}",
        "password: null",
        "{password:${oc.env:PW},x:1}",
        "[mysql://u:${oc.env:PW}@h,me@home]",
        "password_file=/etc/pw",
        "max_tokens=5",
        "task sets: 5/5, 5 done, 0 bad",
        "user@host:22",
        "tasksets.utilizations=[0.5, 0.6]",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text


@given(SECRETS, WORDS)
def test_known_secrets_are_found_without_any_sign(secret: str, words: str) -> None:
    assert secret not in masked(f"{words}{secret}{words}", {secret})


def test_a_secret_within_another_one_leaves_no_rest() -> None:
    assert masked("abcdefgh abcd", {"abcd", "abcdefgh"}) == "*** ***"


def configs(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["host", "uri", "monitors", "db", "tasks", "_target_"])
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
    )


@given(config=configs(st.none() | st.integers() | st.booleans() | WORDS))
def test_a_config_without_secrets_has_none(config: Any) -> None:
    assert list(literal_secrets(config)) == []


@given(SECRETS, NAMES, st.lists(st.sampled_from(["monitors", "db", 0]), max_size=4), st.booleans())
def test_a_secret_is_found_however_deep_it_lies(
    secret: str, name: str, path: list[str | int], as_uri: bool
) -> None:
    value: Any = {"uri": f"mysql://u:{secret}@h"} if as_uri else {name: secret}
    key = "uri" if as_uri else name
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
        key = f"[0].{key}" if isinstance(step, int) else f"{step}.{key}"
    assert list(literal_secrets(value)) == [key.replace(".[", "[")]
    assert {secret} <= secret_values(value)
    assert secret not in json.dumps(masked_values(value, lambda text: masked(text, {secret})))


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"password": 1234}, ["password"]),
        ({"password": True, "token": None, "secret": "", "api_key": "???"}, []),
        ({"secrets": ["a"], "secret": ["a", "${oc.env:B}"]}, ["secret[0]"]),
        ({"uri": "mysql://u:with space@h"}, ["uri"]),
        ({"password": "${oc.env:PW,hunter2}"}, ["password"]),
        ({"password": "${oc.env:PW,null}"}, []),
        ({"password": "pre${oc.env:PW}"}, ["password"]),
    ],
)
def test_references_are_none_and_values_are(config: dict[str, Any], keys: list[str]) -> None:
    assert list(literal_secrets(config)) == keys


def test_a_password_in_a_uri_is_known_as_it_is_and_decoded() -> None:
    assert secret_values({"uri": "mysql://u:p%40ssword@h"}) == {"p%40ssword", "p@ssword"}


@pytest.mark.parametrize(
    "part", ["a", "://", "://a:", "password", "password=", "password='", "${", "token: "]
)
def test_long_texts_take_no_longer_than_they_are_long(part: str) -> None:
    began_s = time.monotonic()
    masked(part * (200_000 // len(part)))
    assert time.monotonic() - began_s < 20


def test_an_error_shows_no_secret() -> None:
    error = UsageError(
        "no mysql://u:hunter2@h",
        where="password=hunter2",
        evidence="token: hunter2",
        next_step="://u:hunter2@h",
    )
    assert "hunter2" not in f"{error} {error.args} {error.what} {error.evidence}"


def test_no_record_shows_a_secret_whoever_logs_and_whoever_writes(caplog: pytest.LogCaptureFixture) -> None:
    """Message, arguments and traceback; also of a library that knows nothing of it."""
    with Masking() as masking, caplog.at_level(logging.INFO):
        masking.learn({"swordfish"})
        log = logging.getLogger("some.package")
        log.info("connecting to %s as %s", "mysql://u:hunter2@h", "swordfish")
        try:
            raise ValueError("cannot reach mysql://u:hunter2@h, swordfish")
        except ValueError:
            log.exception("failed: %s", "password=hunter2")
        log.info("%d", "no number: swordfish")
    assert "connecting to mysql://u:***@h as ***" in caplog.text
    assert "ValueError: cannot reach mysql://u:***@h, ***" in caplog.text
    assert "hunter2" not in caplog.text
    assert "swordfish" not in caplog.text
    before = logging.getLogRecordFactory()
    with Masking():
        assert logging.getLogRecordFactory() != before
    assert logging.getLogRecordFactory() == before
