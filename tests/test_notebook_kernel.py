"""Real notebooks in a real kernel: figures inline, interrupts, and kernels that are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from runner.config.resuming import read_manifest
from runner.data.audit import audit
from runner.exit_codes import ExitCode
from tests.cli import ROOT, RUN_TIMEOUT_S
from tests.qemu_guests import PATIENCE_S, eventually
from tests.test_notebook import LONG, runs_in

EXAMPLE = ROOT / "examples" / "notebook.ipynb"
# A run waits for its report, which has the lowest priority, and so a long time on a busy computer.
_CELL_TIMEOUT_S = 540
# Jupyter's own, about itself.
pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::ResourceWarning", "default::RuntimeWarning"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the notebook is; nothing of the user's own Jupyter has a say."""
    monkeypatch.chdir(tmp_path)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.timeout(600)
def test_the_example_shows_its_figures_inline(here: Path) -> None:
    stored = nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in stored.cells), "outputs are not stored"
    client = NotebookClient(stored, timeout=_CELL_TIMEOUT_S, resources={"metadata": {"path": str(here)}})
    asyncio.run(client.async_execute())
    outputs = {cell.id: cell.get("outputs", []) for cell in stored.cells}
    html = shown(outputs["acceptance"], "text/html")
    assert html.count("<svg") == 1
    assert "N = 20 task sets" in html
    assert shown(outputs["run"], "text/plain").startswith("['u0.9-0', 'u1-0', ")
    # A bar that is a widget, and once: the run's own lines would say the same.
    values = [str(one.get("value")) for one in client.widget_state.values()]
    assert any("20/20" in one for one in values), values
    printed = "".join(one.text for one in outputs["run"] if one.output_type == "stream")
    assert "N = 20 task sets" in printed
    assert "task sets: " not in printed
    assert "label_schedulable" in shown(outputs["frame"], "text/html")
    assert len(list(here.glob("outputs/*/*/report.html"))) == 1


def shown(outputs: list[Any], kind: str) -> str:
    (found,) = [one.data[kind] for one in outputs if one.output_type == "execute_result"]
    return str(found)


@pytest.fixture
def kernel() -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel, and who types."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=RUN_TIMEOUT_S)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def until_printed(client: BlockingKernelClient, asked: str, text: str) -> None:
    while True:
        message = client.get_iopub_msg(timeout=RUN_TIMEOUT_S)
        if message["parent_header"].get("msg_id") != asked:
            continue
        assert message["msg_type"] != "error", message["content"]
        if text in message["content"].get("text", ""):
            return


def test_an_interrupt_ends_the_run_and_a_killed_kernel_leaves_none(here: Path, kernel: Any) -> None:
    manager, client = kernel
    asked = client.execute(
        f"import runner\nwith runner.start(*{LONG!r}, 'hydra.run.dir=interrupted') as run:\n"
        "    for result in run:\n        print('measured', result.name)\n"
    )
    until_printed(client, asked, "measured")
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=RUN_TIMEOUT_S))["parent_header"]["msg_id"] != asked:
        pass  # to what was asked before
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    manifest = read_manifest(here / "interrupted" / "manifest.json")
    assert manifest is not None
    assert manifest["ended"]["exit_code"] == ExitCode.STOPPED

    # Without `with` a cell returns, and the run goes on beneath it, resumed here.
    asked = client.execute("run = runner.start(resume='interrupted')\nnext(iter(run))\nprint('goes on')")
    until_printed(client, asked, "goes on")
    assert any("notebook.child" in one for one in runs_in(here))
    manager.shutdown_kernel(now=True)
    assert eventually(lambda: not any("notebook.child" in one for one in runs_in(here)), within_s=PATIENCE_S)
    assert audit(here / "interrupted" / "results.sqlite").violations == ()
    assert not (here / "interrupted" / "run.lock").exists()
