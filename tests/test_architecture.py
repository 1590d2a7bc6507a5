"""Who may import whom, and the rules of the house that a linter does not know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Groups of modules, lowest first. A module imports from lower groups, and from its own where that makes no cycle.
#: A new file belongs into exactly one of them: into the lowest that its imports allow, and its subject fits.
RANKS = (
    "errors text files admission text.excerpt text.secrets deadline units files.durable text.terminal_filter files.private"
    " exit_codes admission.holds shortage compiled",
    "cluster cluster.shares"
    " model faults operator machines run_folder model.refusal model.task model.taskset model.adaptive model.arrival fleet steering specs"
    " paths operator.control"
    " faults.recovery faults.incidents faults.tries faults.quarantine text.log_lines admission.capacity"
    " network",
    "events data queue config analysis analysis.applicable analysis.arrays analysis.breakdown analysis.demand"
    " analysis.demand_arrays analysis.edf_response analysis.fixed_priority analysis.global_edf analysis.single_cpu"
    " analysis.sporadic analysis.subject analysis.utilization analysis.verdict task_loader"
    " simulator simulator.admission simulator.simulation simulator.state tasksets tasksets.examples"
    " formats formats.document formats.export formats.jobs formats.kinds formats.markup formats.native formats.native_schema"
    " formats.notes formats.original formats.original_task formats.rt_app formats.rtspin formats.schedcat formats.simso"
    " formats.single formats.source formats.task_hash"
    " tasksets.explicit tasksets.uunifast tasksets.written tasksets.stream tasksets.request tasksets.convolutional tasksets.shares"
    " tasksets.periods tasksets.deadlines tasksets.priorities tasksets.programs tasksets.recipe tasksets.generated"
    " tasksets.growing tasksets.boundary tasksets.bulk confidence expectations data.schema data.features"
    " data.meanings data.dictionary data.views submission qemu"
    " qemu.architectures qemu.command qemu.contradictions qemu.failure qemu.image qemu.saved_state"
    " config.generators config.monitors config.machines config.making config.plan config.sweeping config.launching"
    " config.composer config.errors config.files config.record"
    " config.expected config.schemas config.resuming"
    " config.masking task_loader.wire task_loader.decoder identity disturbance mailbox mailbox.layout"
    " mailbox.reply mailbox.request genode genode.descriptions genode.framing genode.goal genode.matching"
    " genode.profiles cluster.delivery",
    "hosts hosts.base hosts.board qemu.become qemu.berth qemu.boot qemu.bounded_log qemu.confinement"
    " qemu.console_link qemu.cpus qemu.emulator qemu.host qemu.killswitch qemu.launcher"
    " qemu.genode_command qemu.genode_host qemu.noise qemu.plain_start qemu.probe qemu.process qemu.qmp"
    " qemu.settings qemu.shared_memory qemu.snapshot qemu.stem qemu.tap sessions sessions.base"
    " sessions.bounded_socket sessions.genode_line faults.evidence monitors monitors.base monitors.channel monitors.digest"
    " monitors.dispatcher monitors.listener data.rows data.database data.ideal data.record data.ledger data.progress"
    " data.reuse data.audit data.history data.set_history run_folder.pulse data.parquet data.reading data.batch"
    " monitors.batching queue.retries"
    " queue.supply queue.lease queue.taskset_queue queue.jobs operator.control_watcher"
    " operator.meter operator.sweep_watch operator.status operator.signals"
    " run_folder.lock run_folder.jobs admission.readings admission.seats admission.gate operator.screen operator.attachment"
    " cluster.wire cluster.messages",
    "sessions.genode sessions.mailbox sessions.simulation sessions.ssh sessions.ssh_connection"
    " monitors.logging monitors.progress"
    " monitors.csv"
    " monitors.mongodb monitors.parquet monitors.postgresql monitors.sqlite monitors.stdout monitors.summary",
    "machines.station machines.measuring machines.attempt machines.recoveries machines.machine",
    "machines.kinds",
    "machines.roster cluster.reports cluster.checks cluster.link cluster.crew",
    "distributor cluster.relay",
    "cluster.agent",
    "cluster.pool cluster.slurm",
    "operator.terminal run_folder.guests run_folder.manifest assembly workers run_folder.files run campaign"
    " sweep sweep_job cli check console convert disagreements"
    " why why.page why.guests why.run why.taskset why.verdict why.machine why.__main__ report report.acceptance report.after_run"
    " report.canvas report.disagreements report.expected"
    " report.fleet report.gantt report.job_charts report.job_sections report.page report.provenance"
    " report.reading report.responses report.run_report report.schedule report.set_charts report.set_report"
    " report.set_sections report.statistics report.trace report.__main__ __main__"
    " notebook notebook.attended notebook.bar notebook.child notebook.figures notebook.messages notebook.process notebook.results"
    " notebook.start notebook.started_run",
    "rehearsal rehearsal.catalogue rehearsal.clock_shift rehearsal.comparison rehearsal.emulator_faults"
    " rehearsal.fault rehearsal.guest_faults rehearsal.host_faults rehearsal.leftovers"
    " rehearsal.line_faults rehearsal.link rehearsal.monitor rehearsal.mount_namespace"
    " rehearsal.private_cache rehearsal.processes rehearsal.qmp_sockets rehearsal.relay"
    " rehearsal.run_faults rehearsal.scene rehearsal.sessions rehearsal.setup rehearsal.source"
    " rehearsal.switchboard rehearsal.tampered_host rehearsal.trial rehearse",
    "",  # the package itself, which re-exports
)
RANK = {
    f"runner.{name}".rstrip("."): rank for rank, names in enumerate(RANKS) for name in (names.split() or [""])
}

#: Libraries, and the only modules that may know them. Everything else comes through these.
HOMES = {
    "fabric": {"runner.sessions.ssh", "runner.sessions.ssh_connection"},
    "paramiko": {"runner.sessions.ssh", "runner.sessions.ssh_connection"},
    "convolutionalfixedsum": {"runner.tasksets.convolutional"},
    "numba": {"runner.compiled"},
    "invoke": set[str](),  # Fabric's lower half
    "hydra": {
        "runner.config.making",
        "runner.config.sweeping",
        "runner.config.launching",
        "runner.config.schemas",
        "runner.config.composer",
        "runner.config.errors",
        "runner.config.files",
        "runner.cli",
    },
    "omegaconf": {
        "runner.config.expected",
        "runner.config.generators",
        "runner.config.machines",
        "runner.config.monitors",
        "runner.config.making",
        "runner.config.plan",
        "runner.config.sweeping",
        "runner.config.launching",
        "runner.config.composer",
        "runner.config.errors",
        "runner.config.record",
        "runner.config.schemas",
        "runner.campaign",
        "runner.sweep_job",
        "runner.cli",
        "runner.notebook.attended",
    },
    "tqdm": {"runner.operator.meter", "runner.notebook.bar"},
    "qemu": {"runner.qemu.qmp"},
    "watchfiles": {"runner.operator.control_watcher"},
    "sqlite3": {
        "runner.data.database",
        "runner.data.audit",
        "runner.data.history",
        "runner.data.ledger",
        "runner.data.progress",
        "runner.data.record",
        "runner.data.reuse",
        "runner.data.features",
        "runner.data.parquet",
        "runner.formats.original",
        "runner.rehearsal.comparison",
    },
    "pyarrow": {"runner.data.parquet"},
    "pandas": {"runner.data.reading"},
    "polars": {"runner.data.reading"},
    "sqlalchemy": {"runner.monitors.postgresql"},
    "pymongo": {"runner.monitors.mongodb"},
    "matplotlib": {
        "runner.report.canvas",
        "runner.report.gantt",
        "runner.report.job_charts",
        "runner.report.set_charts",
    },
    "distributed": {"runner.cluster.pool"},
    "dask": {"runner.cluster.pool"},
    "dask_jobqueue": {"runner.cluster.slurm"},
    "host_setup": set[str](),  # makes hosts ready, in a process of its own
    "tests": set[str](),
}
LINES_HARD = 400
LINES_SOFT = 300
#: Longer than they should be, and why they still are one module.
LONG = {
    "runner.machines.machine": "the life of a host is one story",
    "runner.qemu.host": "one guest's life, whatever it starts from",
    "runner.qemu.emulator": "one process, one monitor, and what becomes of them, under one lock",
    "runner.distributor": "every method works under the one lock",
    "runner.sessions.ssh": "the home of Fabric and paramiko",
}
FUNCTION_LINES = 50
#: Quantities whose unit must be part of the name.
NEEDS_UNIT = re.compile(
    r"(timeout|period|deadline|duration|delay|interval|offset|memory|wcet|runtime|budget|elapsed|age|took|size|rate)$"
)


@dataclass(frozen=True)
class Import:
    """One import of one module."""

    target: str
    line: int
    in_function: bool


@dataclass(frozen=True)
class Module:
    """A file of the package, parsed."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def imports(self) -> Iterator[Import]:
        """Every import, with full names; those for the type checker only are left out."""
        yield from self._imports_of(self.tree, in_function=False)

    def _imports_of(self, node: ast.AST, *, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Import(names):
                    for alias in names:
                        yield Import(alias.name, child.lineno, in_function)
                case ast.ImportFrom(module, names, level):
                    assert level == 0, f"{self.name}:{child.lineno}: relative import"
                    for alias in names:
                        yield Import(resolved(f"{module}.{alias.name}"), child.lineno, in_function)
                case ast.If(test) if ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                    continue
                case _:
                    inside = in_function or isinstance(child, ast.FunctionDef | ast.Lambda)
                    yield from self._imports_of(child, in_function=inside)


@cache
def modules(package: str = "runner") -> dict[str, Module]:
    """All of a package, by full name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


def resolved(name: str) -> str:
    """`runner.model.Task` is a name of module `runner.model`; other packages count by their own names."""
    while name.startswith("runner.") and name not in modules():
        name = name.rpartition(".")[0]
    return name


every_module = pytest.mark.parametrize("module", modules().values(), ids=list(modules()))


def test_every_module_has_its_rank() -> None:
    listed = [name for names in RANKS for name in names.split()]
    assert len(listed) == len(set(listed)), "a module stands twice in the table"
    assert set(modules()) - set(RANK) == set(), "new modules: give each a place in RANKS"
    assert set(RANK) - set(modules()) == set(), "modules that are gone: take them out of RANKS"


@every_module
def test_imports_point_down(module: Module) -> None:
    upward = [
        f"{module.path.name}:{one.line} imports {one.target}"
        for one in module.imports()
        if one.target.startswith("runner") and RANK[one.target] > RANK[module.name]
    ]
    assert not upward


def test_imports_make_no_cycle() -> None:
    graph = {
        module.name: {one.target for one in module.imports() if one.target.startswith("runner")}
        for module in modules().values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" → ".join(exc.args[1]))


@every_module
def test_a_late_import_says_why(module: Module) -> None:
    lines = ["", *module.text.splitlines()]
    silent = [
        f"{module.path.name}:{one.line}"
        for one in module.imports()
        if one.in_function and "# late import: " not in lines[one.line] + lines[one.line - 1]
    ]
    assert not silent


@every_module
def test_a_library_has_one_home(module: Module) -> None:
    strays = [
        f"{module.path.name}:{one.line} imports {one.target}"
        for one in module.imports()
        if module.name not in HOMES.get(one.target.partition(".")[0], {module.name})
    ]
    assert not strays


def test_every_library_is_at_home() -> None:
    """A home that nobody lives in any more goes out of the table."""
    lived_in = {
        (one.target.partition(".")[0], name) for name, module in modules().items() for one in module.imports()
    }
    empty = [
        f"{library}: {home}"
        for library, homes in HOMES.items()
        for home in homes
        if (library, home) not in lived_in
    ]
    assert empty == []


@pytest.mark.parametrize("package", ["runner", "host_setup"])
def test_modules_have_a_subject(package: str) -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert not [name for name in modules(package) if name.rpartition(".")[2] in vague]
    assert not [name for name, module in modules(package).items() if not ast.get_docstring(module.tree)]


@pytest.mark.parametrize("package", ["runner", "host_setup"])
def test_modules_can_be_read_in_one_go(package: str) -> None:
    lengths = {name: module.text.count("\n") for name, module in modules(package).items()}
    assert not {name: n for name, n in lengths.items() if n > LINES_HARD}
    assert not {name: n for name, n in lengths.items() if n > LINES_SOFT and name not in LONG}
    if package == "runner":
        assert not {name for name in LONG if lengths[name] <= LINES_SOFT}, "short again: take it out of LONG"


def n_lines(function: ast.FunctionDef) -> int:
    """From `def` to the end, without the docstring: what one has to keep in mind."""
    first, *_ = function.body
    docstring = first if ast.get_docstring(function) else None
    told = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring is not None else 0
    return (function.end_lineno or 0) - function.lineno + 1 - told


@pytest.mark.parametrize("package", ["runner", "host_setup"])
def test_functions_fit_on_a_screen(package: str) -> None:
    long = [
        f"{name}.{node.name}: {n_lines(node)} lines"
        for name, module in modules(package).items()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef) and n_lines(node) > FUNCTION_LINES
    ]
    assert not long


def test_quantities_carry_their_unit() -> None:
    """`timeout_s`, `memory_mib`, `period_ns`: wherever a plain number is a field or a parameter."""
    plain = {"int", "float", "int | None", "float | None"}
    bare = []
    for module in modules().values():
        for node in ast.walk(module.tree):
            match node:
                case ast.AnnAssign(ast.Name(name), annotation) | ast.arg(name, ast.expr() as annotation):
                    if ast.unparse(annotation) in plain and NEEDS_UNIT.search(name):
                        bare.append(f"{module.path.name}:{node.lineno} {name}")
    assert not bare


@pytest.mark.parametrize("package", ["runner", "host_setup"])
def test_nothing_lives_outside_its_owner(package: str) -> None:
    """No state in modules, no daemon threads, no clean-up that the interpreter may forget."""
    found = []
    for module in modules(package).values():
        for node in module.tree.body:
            match node:
                case ast.Assign([ast.Name(name)], ast.Call()) if (
                    name not in ("_log", "_E") and not name.isupper()
                ):
                    found.append(f"{module.path.name}:{node.lineno} {name} is made at import")
                case ast.Expr(ast.Call()):
                    found.append(f"{module.path.name}:{node.lineno} works at import")
        for inner in ast.walk(module.tree):
            match inner:
                case ast.FunctionDef(name="__del__"):
                    found.append(f"{module.path.name}:{inner.lineno} __del__")
                case ast.keyword("daemon", ast.Constant(True)):
                    found.append(f"{module.path.name}:{inner.lineno} a daemon thread")
                case ast.Global():
                    found.append(f"{module.path.name}:{inner.lineno} global")
        found += [
            f"{module.path.name}:{one.line} atexit" for one in module.imports() if one.target == "atexit"
        ]
    assert not found
