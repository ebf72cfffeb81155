"""The house rules that a program can check, read from the source without running it."""

import ast
import functools
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

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
    "walk": 1,
    "rules": 1,
    "replay": 2,
    "hold": 2,
    "start": 2,
    "autopsy": 2,
    "centering": 2,
    "clipping": 2,
    "moments": 2,
    "rate": 2,
    "losses": 2,
    "sharding": 2,
    "precision": 2,
    "recovery": 3,
    "checkpoints": 4,
    "taps": 2,
    "telemetry": 4,
    "health": 5,
    "guard": 4,
    "recipes": 5,
    "capture": 6,
    "testing": 7,
    "report": 7,
    "doctor": 7,
    "watch": 8,
    "front": 9,
    "cli": 10,
    "door": 11,
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
# Of Optimistix.
_NAMES_OF_OTHERS = re.compile(r"OptaxMinimiser|optx\.minimise")


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


@functools.cache
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


KNOWN = {module_name(module) for module in MODULES}


def imported(file: Path, *, inside_functions: bool = True) -> set[str]:
    """Return the modules that a file imports; a name taken from a package may be a module."""
    found: set[str] = set()
    for node in at_run_time(tree_of(file), inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        assert node.level == 0, f"{place(file)}:{node.lineno} imports relatively"
        assert node.module is not None
        full = {f"{node.module}.{alias.name}" for alias in node.names}
        found |= (full & KNOWN) or {node.module}
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


def test_imports_point_down() -> None:
    found = [
        f"{place(file)} imports {module}, which stands above it"
        for file in MODULES
        for module in imported(file)
        if module.partition(".")[0] == "gradstable"
        and room(module) != room(module_name(file))
        and FLOORS[room(module)] >= FLOORS[room(module_name(file))]
    ]
    assert not found, found


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


def test_only_jax_and_optax_are_always_loaded() -> None:
    may = sys.stdlib_module_names | ALWAYS_LOADED | {"gradstable"}
    found = {
        place(file): others
        for file in MODULES
        if room(module_name(file)) not in ON_DEMAND
        and (
            others := {
                top
                for name in imported(file, inside_functions=False)
                if (top := name.partition(".")[0]) not in may
            }
        )
    }
    assert not found, found


def test_files_are_short() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    found = {
        place(file): length
        for file, length in lengths.items()
        if length > (MAX_MODULE if PACKAGE in file.parents else MAX_LINES)
    }
    assert not found, found


def functions(file: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield all functions of a file, each with its place."""
    for node in definitions(tree_of(file), nested=True):
        if not isinstance(node, ast.ClassDef):
            yield f"{place(file)}:{node.lineno} {node.name}", node


def test_functions_are_short() -> None:
    found: dict[str, int] = {}
    for file in MODULES:
        for where, node in functions(file):
            docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
            length = (node.end_lineno or 0) - node.lineno + 1 - docstring
            if length > MAX_FUNCTION:
                found[where] = length
    assert not found, f"lines without the docstring: {found}"


def test_everything_public_has_a_docstring() -> None:
    found: list[str] = []
    for file in MODULES:
        tree = tree_of(file)
        if not ast.get_docstring(tree):
            found.append(place(file))
        found += [
            f"{place(file)}:{node.lineno} {node.name}"
            for node in definitions(tree)
            if not (node.name.startswith("_") or ast.get_docstring(node))
        ]
    assert not found, found


def test_everything_is_annotated() -> None:
    found: list[str] = []
    for file in MODULES:
        for where, node in functions(file):
            args = node.args
            every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
            found += [
                f"{where}: {arg.arg}"
                for arg in every
                if arg is not None and arg.annotation is None and arg.arg not in ("self", "cls")
            ]
            if node.returns is None:
                found.append(f"{where}: what it returns")
    assert not found, found


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
        f"{place(file)}:{number}: {match.group()}"
        for file in prose
        if file != Path(__file__)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in _BRITISH.finditer(_NAMES_OF_OTHERS.sub("", line))
    ]
    assert not found, found
