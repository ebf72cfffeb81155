"""What a user can import, what that costs, and what the release says of itself."""

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest

import gradstable as gs
from tests import registry
from tests.registry import public_names, resolve

ROOT = Path(__file__).parents[1]
# In the order in which they stand; Attributes takes the place of Args in a class.
SECTIONS = ("Attributes", "Args", "Returns", "Raises", "Example", "Source")
ROOMS = (gs, *(getattr(gs, room) for room in registry.ROOMS))


FUNCTIONS = [name for name in public_names() if inspect.isfunction(resolve(name))]
CLASSES = [name for name in public_names() if inspect.isclass(resolve(name))]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_all_is_sorted_unique_and_complete(room: typing.Any) -> None:
    assert room.__all__ == sorted(set(room.__all__))
    defined = {
        name
        for name, value in vars(room).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith("gradstable")
    }
    assert defined <= set(room.__all__)


def test_every_name_can_be_imported() -> None:
    assert not [name for name in public_names() if resolve(name) is None]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'gurad'"):
        resolve("gurad")


def sections(function: typing.Any) -> dict[str, str]:
    """Return the sections of a docstring in their order, each with its text."""
    text = inspect.getdoc(function) or ""
    parts = re.split(r"^([A-Z][a-z]+):\n(?=  )", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_sections_of_docstrings_stand_in_order() -> None:
    found = {name: list(sections(resolve(name))) for name in [*FUNCTIONS, *CLASSES]}
    assert found == {
        name: [section for section in SECTIONS if section in theirs]
        for name, theirs in found.items()
    }


def test_docstrings_describe_every_argument_and_what_is_returned() -> None:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    for name in FUNCTIONS:
        parts, signature = sections(resolve(name)), inspect.signature(resolve(name))
        described = re.findall(r"^  (\*{0,2}\w+):", parts.get("Args", ""), flags=re.MULTILINE)
        assert described == [
            stars.get(parameter.kind, "") + parameter.name
            for parameter in signature.parameters.values()
        ], name
        assert ("Returns" in parts) == (signature.return_annotation is not None), name


def test_docstrings_have_an_example_that_runs() -> None:
    examples = {name: sections(resolve(name)).get("Example", "") for name in FUNCTIONS}
    assert not [name for name, example in examples.items() if ">>> " not in example]


# What takes the place of a function of optax takes by position what that does, and the companion of
# an optimizer what a log does.
AS_OTHERS = {
    "losses.smooth_labels": ["labels", "alpha"],
    "losses.softmax_cross_entropy": ["logits", "labels", "axis", "where"],
    "watch": ["tx", "params", "path"],
}


def test_only_the_first_arguments_go_by_position() -> None:
    for name in FUNCTIONS:
        parameters = inspect.signature(resolve(name)).parameters.values()
        positional = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        names = [p.name for p in positional]
        if name in AS_OTHERS:
            assert names == AS_OTHERS[name]
            continue
        assert len(names) <= 2, (name, names)
        assert all(p.default in (inspect.Parameter.empty, None) for p in positional[1:]), name


def test_import_loads_jax_and_optax_only() -> None:
    script = (
        "import sys, jax, optax\n"
        "before = set(sys.modules)\n"
        "import gradstable\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    new = ran.stdout.split()
    assert "gradstable._src.guard" in new
    packages = {name.partition(".")[0] for name in new} - sys.stdlib_module_names
    # It loads Pallas, which takes as long as all of this library.
    assert not {name for name in new if name.startswith("jax.extend")}
    # jax keeps parts of itself for when they are asked for.
    assert packages <= {"gradstable", "jax", "jaxlib"}, packages
    assert not {
        name for name in new if {"testing", "cli", "report", "doctor"} & set(name.split("."))
    }


def test_version_is_that_of_the_project_and_of_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[([^]]+)\]", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert gs.__version__ == project["version"] == newest.group(1)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {gs.__version__}\n" in citation
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"\n| {gs.__version__.rpartition('.')[0]}.x | yes |\n" in security
    gauntlet = tomllib.loads((ROOT / "benchmarks/gauntlet/pyproject.toml").read_text("utf-8"))
    assert gauntlet["project"]["version"] == gs.__version__
    assert f"gradstable=={gs.__version__}" in gauntlet["project"]["dependencies"]


def test_a_source_tree_that_is_not_installed_can_be_imported(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gradstable", tmp_path / "gradstable")
    hidden = f"""
import importlib.metadata, sys
known = importlib.metadata.version
def version(name):
    if name == "gradstable":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
sys.path.insert(0, {str(tmp_path)!r})
import gradstable
print(gradstable.__version__, gradstable.__file__)
"""
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert done.stdout.startswith(f"unknown {tmp_path}"), done.stderr


def test_package_is_marked_as_typed() -> None:
    assert (ROOT / "gradstable" / "py.typed").is_file()


def project_files() -> list[Path]:
    """Return the files that belong to the project, by git where there is one."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return [file for file in (ROOT / "gradstable").rglob("*") if file.is_file()]
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [file for name in ran.stdout.split("\0") if name and (file := ROOT / name).is_file()]


# Written in two parts, since this file is searched as well.
IN_TWO_PARTS = [
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/opt/", "py"),
    ("index-", "url"),
    ("find-", "links"),
    ("python", r"hosted\.org"),
    (r"://[^/\s]+/", "simple"),
    (r"\b127\.", r"0\.0\.1\b"),
]


def test_no_file_names_a_machine() -> None:
    forbidden = re.compile("|".join(first + second for first, second in IN_TWO_PARTS))
    found: list[str] = []
    for file in project_files():
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
            for number, line in enumerate(lines, 1)
            if forbidden.search(line)
        ]
    assert not found, found


def moved() -> list[tuple[str, str]]:
    """Return the rows of the table in the changelog: the name before, and what it is now."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([\w.]+)` \| `(gs\.[^`]+)` \|$", text, flags=re.MULTILINE)


def test_every_name_that_moved_is_found_where_the_changelog_says() -> None:
    assert len(moved()) >= 79
    for before, now in moved():
        for name in re.findall(r"gs\.([\w.]*\w)", now):
            assert callable(resolve(name)), name
        assert not hasattr(gs, before), f"{before} is still on top"


def front() -> list[Path]:
    return [file for file in (ROOT / "gradstable").glob("*.py") if file.name != "__main__.py"]


@pytest.mark.parametrize("file", front(), ids=lambda file: file.name)
def test_the_front_lists_and_defines_nothing(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    defined = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
    }
    assert defined <= {"__getattr__"}
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradstable")
        for alias in node.names
    }
    listed = (
        set(importlib.import_module(f"gradstable.{file.stem}").__all__)
        if file.stem != "__init__"
        else {*gs.__all__} - {"testing"}
    )
    assert imported == listed


def renamed() -> list[tuple[str, str, str]]:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("Arguments, by")[1]
    rows = re.findall(r"^\| (`.*`) \| (`.*`) \| (`\w.*`) \|$", text, flags=re.MULTILINE)
    names = re.compile(r"`([\w.]+)`")
    return [
        (name, before, now)
        for functions, old, new in rows
        for name in names.findall(functions)
        for before, now in zip(names.findall(old), names.findall(new), strict=True)
    ]


def test_every_argument_that_was_renamed_is_what_the_changelog_says() -> None:
    assert len(renamed()) >= 16
    for name, before, now in renamed():
        known = inspect.signature(resolve(name)).parameters
        assert now in known, (name, now)
        assert before not in known or (name, before) == ("moments.scale_by_spam", "warmup_steps")
