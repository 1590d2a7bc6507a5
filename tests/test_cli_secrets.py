"""No password or token is ever written down or shown: literal ones are refused, those from the environment are masked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings

from runner.exit_codes import ExitCode
from tests.cli import run_cli
from tests.test_secrets import SECRETS

SECRET = "Zq7hunter2"
URI = f"mysql://user:{SECRET}@host/db"
IDEAL = ("machines=simulation", "tasksets.sets_per_utilization=1", "tasksets.utilizations=[0.5]")

OWN = '''
import logging
from runner.errors import HostError, TaskSetError
from runner.monitors.base import AbstractMonitor
from runner.sessions.simulation import SimulationSession

log = logging.getLogger("some.package")


class Database(AbstractMonitor):
    """Fails with what libraries put into their errors."""

    def __init__(self, uri, password=None, when="finish", required=False):
        self.uri, self.password, self.when, self.required = uri, password, when, required
        log.info("connecting to %s with %s", uri, password)
        self.may_fail("init")

    def may_fail(self, when):
        if when == self.when:
            log.warning("about to fail: %s", self.uri)
            raise ConnectionError(f"no connection to {self.uri}: {self.password} was refused")

    def open(self):
        self.may_fail("open")

    def __taskset_finish__(self, run, result):
        self.may_fail("finish")

    def close(self):
        self.may_fail("close")


class Picky(SimulationSession):
    def __init__(self, uri):
        super().__init__()
        self.uri = uri

    def start(self, taskset, deadline):
        raise TaskSetError(f"refused by {self.uri}")


class Sick(Picky):
    def open(self, deadline):
        raise HostError(f"cannot reach {self.uri}")
'''


def assert_secret(folder: Path, done: subprocess.CompletedProcess[str], *secrets: str) -> None:
    """Neither said nor written."""
    for secret in secrets or (SECRET,):
        assert secret not in done.stdout
        assert secret not in done.stderr
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".py":
                assert secret.encode() not in path.read_bytes(), path


LITERALS = {
    "URI": [f"+monitors.db.uri={URI}"],
    "URI in quotes": [f"+monitors.db.uri='{URI}'"],
    "key": [f"+monitors.db.password={SECRET}"],
    "key that contains it": [f"+monitors.db.secret.inner={SECRET}"],
    "mapping": [f"+monitors.db={{_target_: own.Database, api_key: {SECRET}}}"],
    "list": [f"+machines.session.uris=[a, '{URI}']"],
    "default of a reference": [f"+monitors.db.token=${{oc.env:NOSUCH,{SECRET}}}"],
    "broken override": [f"+monitors.db.uri=={URI}"],
    "override without value": [URI],
    "unknown flag": [f"--password={SECRET}"],
    "config folder": ["--config-dir", URI],
    "sweep": ["--multirun", f"+monitors.db.password={SECRET},other"],
    "resume": ["resume=nosuch", f"+monitors.db.uri={URI}"],
    "Hydra's part": [f"hydra.job.env_set.DB={URI}"],
    "shown": ["--cfg", "job", f"+monitors.db.uri={URI}"],
}


@pytest.mark.parametrize("case", LITERALS)
def test_literal_secret_on_the_command_line_is_refused(tmp_path, case):
    (tmp_path / "own.py").write_text(OWN)
    done = run_cli(tmp_path, *LITERALS[case], *IDEAL)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "password or token" in done.stderr
    assert "${oc.env:NAME}" in done.stderr
    assert "Traceback" not in done.stderr
    assert_secret(tmp_path, done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.py"]


FILES = {
    "URI": f"# @package _global_\nmonitors: {{db: {{_target_: own.Database, uri: '{URI}'}}}}\n",
    "key": f"# @package _global_\nmonitors:\n  db:\n    _target_: own.Database\n    password: {SECRET}\n",
    "broken": f"# @package _global_\nmonitors: {{db: {{password: {SECRET}\n",
    "wrong type": f"# @package _global_\nmachines: {{count: 'mysql://u:{SECRET}@h'}}\n",
}


@pytest.mark.parametrize("mode", [(), ("--multirun", "hydra.sweep.dir=sweep", "tasksets.seed=1,2")])
@pytest.mark.parametrize("case", FILES)
def test_literal_secret_in_a_file_is_refused(tmp_path, case, mode):
    path = tmp_path / "conf" / "experiment" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILES[case])
    done = run_cli(tmp_path, "--config-dir", "conf", *mode, "experiment=own", *IDEAL)
    assert done.returncode == ExitCode.USAGE
    assert "Traceback" not in done.stderr
    path.unlink()
    assert_secret(tmp_path, done)
    assert [one.name for one in tmp_path.iterdir()] == ["conf"]


def test_shown_config_is_masked(tmp_path):
    path = tmp_path / "conf" / "experiment" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILES["URI"] + "repeat: 2\n")
    env = {"PW": SECRET}
    for more in ((), ("--package=monitors.db", "--resolve", "+monitors.db.password=${oc.env:PW}")):
        shown = run_cli(tmp_path, "--config-dir", "conf", "--cfg", "job", *more, "experiment=own", env=env)
        assert shown.returncode == 0, shown.stderr
        assert "mysql://user:***@host/db" in shown.stdout
        assert SECRET not in shown.stdout


DB = (
    "+monitors.db._target_=own.Database",
    "+monitors.db.uri=${oc.env:DB}",
    "+monitors.db.password=${oc.env:PW}",
)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ((), ExitCode.OK),
        (("+monitors.db.when=init",), ExitCode.USAGE),
        (("+monitors.db.when=open",), ExitCode.OK),
        (("+monitors.db.when=close",), ExitCode.OK),
        (("+monitors.db.when=finish", "+monitors.db.required=true"), ExitCode.BUG),
        (("machines=custom", "machines.session._target_=own.Picky"), ExitCode.BAD_TASKSETS),
        (("machines=custom", "machines.session._target_=own.Sick"), ExitCode.HOST),
        (
            (
                "machines=custom",
                "machines.session._target_=own.Sick",
                "hydra.job.env_copy=[DB]",
                "hydra.run.dir=run",
            ),
            ExitCode.HOST,
        ),
        (("hydra.verbose=true", "hydra.run.dir=run", "reuse=${oc.env:DB}"), ExitCode.USAGE),
    ],
    ids=str,
)
def test_secret_of_the_environment_is_used_and_never_shown(tmp_path, more, code):
    (tmp_path / "own.py").write_text(OWN)
    env = {"DB": URI, "PW": "Zq7swordfish"}
    session = ("+machines.session.uri=${oc.env:DB}",) if "machines=custom" in more else ()
    done = run_cli(tmp_path, *IDEAL, *DB, *more, *session, env=env)
    assert done.returncode == code, done.stderr
    assert_secret(tmp_path, done, SECRET, "Zq7swordfish")
    log = tmp_path / "run" / "distributor.log"
    assert "connecting to mysql://user:***@host/db with ***" in log.read_text()
    record = tmp_path / "run" / ".hydra" / "config.yaml"
    assert not record.exists() or "${oc.env:DB}" in record.read_text()


def test_resumed_run_takes_the_secret_from_the_environment_again(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    failing = ("+monitors.db.when=finish", "+monitors.db.required=true")
    old = {"DB": URI, "PW": "Zq7swordfish"}
    assert run_cli(tmp_path, *IDEAL, *DB, *failing, env=old).returncode == ExitCode.BUG
    missing = run_cli(tmp_path, "resume=run", env={"PW": "x"})
    assert missing.returncode == ExitCode.USAGE
    assert "DB" in missing.stderr
    new = {"DB": URI.replace(SECRET, "Zq7newone"), "PW": "Zq7another"}
    done = run_cli(tmp_path, "resume=run", "++monitors.db.when=never", "changes=accept", env=new)
    assert done.returncode == ExitCode.OK, done.stderr
    assert_secret(tmp_path, done, SECRET, "Zq7swordfish", "Zq7newone", "Zq7another")


@given(secret=SECRETS)
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_any_secret_of_the_environment(tmp_path_factory, secret):
    folder = tmp_path_factory.mktemp("any")
    (folder / "own.py").write_text(OWN)
    env = {"DB": f"mysql://user:{secret}@host/db", "PW": secret}
    failing = ("+monitors.db.when=finish", "+monitors.db.required=true")
    done = run_cli(folder, *IDEAL, *DB, *failing, env=env)
    assert_secret(folder, done, secret)
    assert done.returncode == ExitCode.BUG, done.stderr


def test_pickled_configs_are_not_taken(tmp_path):
    done = run_cli(tmp_path, "--experimental-rerun", "config.pickle")
    assert done.returncode == ExitCode.USAGE
    assert "would execute" in done.stderr
