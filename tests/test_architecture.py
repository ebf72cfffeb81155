"""The house rules that a program can check, read from the source without running it."""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradstable"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted(
    file
    for folder in ("gradstable", "tests", "benchmarks", "examples")
    for file in (ROOT / folder).rglob("*.py")
)

# A room imports rooms of lower floors only. A new room gets its floor here.
FLOORS = {
    "core": 0,
    "rules": 1,
    "hold": 2,
    "centering": 2,
    "clipping": 2,
    "moments": 2,
    "rate": 2,
    "losses": 2,
    "sharding": 2,
    "precision": 2,
    "recovery": 3,
    "checkpoints": 4,
    "telemetry": 4,
    "health": 5,
    "guard": 4,
    "recipes": 5,
    "testing": 7,
    "report": 7,
    "doctor": 7,
    "front": 8,
    "cli": 9,
    "door": 10,
}
ON_DEMAND = {"testing", "report", "doctor", "cli"}
# What all other rooms may load; the rest is loaded where it is needed.
ALWAYS_LOADED = {"jax", "numpy", "optax"}
MAX_LINES, MAX_MODULE, MAX_FUNCTION, MAX_SUPPRESSIONS = 400, 330, 60, 10

_SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)")
_BRITISH = re.compile(
    r"\b\w*(?:(?:normal|stabil|initial|optim|central|regular|material|parallel|summar|synchron"
    r"|vector|organ|recogn|real|general|special|minim|maxim|serial|token|quant)is(?:e|es|ed|er"
    r"|ers|ing|ation|ations)|colour|behaviour|favour|neighbour|honour|labour"
    r"|centre|centred|fibre|licence|defence|analys(?:e|ed|er|ing)|catalogue|cancelled|labelled"
    r"|modelled|modelling|signalled|travelled)\b",
    re.IGNORECASE,
)


def ids(file: Path) -> str:
    return str(file.relative_to(ROOT))


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """Return the room of a module: its first part below ``_src``, or what is around that."""
    parts = module.split(".")
    if parts[:2] == ["gradstable", "_src"] and len(parts) > 2:
        return parts[2]
    return "door" if module in ("gradstable.cli", "gradstable.__main__") else "front"


def at_run_time(tree: ast.AST, *, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that are executed, and so not those for the type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from at_run_time(node, inside_functions=inside_functions)


def imported(file: Path, *, inside_functions: bool = True) -> set[str]:
    """Return the modules that a file imports; a name taken from a package may be a module."""
    known = {module_name(module) for module in MODULES}
    found: set[str] = set()
    for node in at_run_time(tree_of(file), inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        assert node.level == 0, f"{ids(file)}:{node.lineno} imports relatively"
        assert node.module is not None
        full = {f"{node.module}.{alias.name}" for alias in node.names}
        found |= (full & known) or {node.module}
    return found


def definitions(
    tree: ast.AST, *, nested: bool = False
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield functions, classes and methods; on request, also functions inside of functions."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if is_function or isinstance(node, ast.ClassDef):
            yield node
        if nested or not is_function:
            yield from definitions(node, nested=nested)


def test_every_room_has_its_floor() -> None:
    assert {room(module_name(file)) for file in MODULES} <= FLOORS.keys()


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_imports_point_down(file: Path) -> None:
    here = room(module_name(file))
    for module in imported(file):
        if module.partition(".")[0] != "gradstable" or room(module) == here:
            continue
        there = room(module)
        assert FLOORS[there] < FLOORS[here], f"{here} imports {module}, which stands above it"


def test_imports_have_no_cycle() -> None:
    graph = {
        module_name(file): {
            module
            for module in imported(file, inside_functions=False)
            if module.startswith("gradstable.")
        }
        for file in MODULES
    }
    for package in [name for name in graph if name != "gradstable"]:
        graph[package].discard(package)
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_only_jax_and_optax_are_always_loaded(file: Path) -> None:
    if room(module_name(file)) in ON_DEMAND:
        return
    loaded = {name.partition(".")[0] for name in imported(file, inside_functions=False)}
    assert loaded - sys.stdlib_module_names <= ALWAYS_LOADED | {"gradstable"}


@pytest.mark.parametrize("file", SOURCES, ids=ids)
def test_file_is_short(file: Path) -> None:
    limit = MAX_MODULE if PACKAGE in file.parents else MAX_LINES
    assert len(file.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_functions_are_short(file: Path) -> None:
    for node in definitions(tree_of(file), nested=True):
        if isinstance(node, ast.ClassDef):
            continue
        docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
        length = (node.end_lineno or 0) - node.lineno + 1 - docstring
        assert length <= MAX_FUNCTION, f"{node.name} has {length} lines without its docstring"


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_everything_public_has_a_docstring(file: Path) -> None:
    tree = tree_of(file)
    assert ast.get_docstring(tree), "the module has none"
    for node in definitions(tree):
        assert node.name.startswith("_") or ast.get_docstring(node), node.name


@pytest.mark.parametrize("file", MODULES, ids=ids)
def test_everything_is_annotated(file: Path) -> None:
    for node in definitions(tree_of(file), nested=True):
        if isinstance(node, ast.ClassDef):
            continue
        args = node.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        bare = [
            arg.arg
            for arg in every
            if arg is not None and arg.annotation is None and arg.arg not in ("self", "cls")
        ]
        assert not bare, f"{node.name}: {bare}"
        assert node.returns is not None, f"{node.name} does not say what it returns"


def test_suppressions_are_rare_and_name_their_rule() -> None:
    lines = [
        line for file in MODULES for line in file.read_text(encoding="utf-8").splitlines()
        if _SUPPRESSION.search(line)
    ]  # fmt: skip
    assert len(lines) <= MAX_SUPPRESSIONS, lines
    for line in lines:
        assert re.search(r"noqa: [A-Z]+\d+|ignore\[\w+\]", line), f"names no rule: {line}"


def test_spelling_is_american() -> None:
    prose = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *SOURCES]
    found = [
        f"{ids(file)}:{number}: {match.group()}"
        for file in prose
        if file != Path(__file__)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in _BRITISH.finditer(line)
    ]
    assert not found, found
