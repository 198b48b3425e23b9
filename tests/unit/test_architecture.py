"""The house's rules, held by tools: form, types, import contracts, names."""

import ast
import builtins
import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_tool_is_content(command: list[str]) -> None:
    tool = BIN / command[0]
    if not tool.exists():
        pytest.skip(f"{command[0]} is not installed beside this interpreter")
    done = subprocess.run(
        [str(tool), *command[1:]], cwd=CHECKOUT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}
    modules = (CHECKOUT / "src").rglob("*.py")
    assert [str(path) for path in modules if path.stem in drawers] == []


def test_types_are_named_in_one_way_on_the_start_path_and_in_one_off_it() -> None:
    # Importing typing takes longer than a command that starts a container may. These rooms load
    # asyncio, HTTP or dataclasses, and with them typing, in any case; so does what has a
    # NamedTuple.
    off = {"api", "build", "dockerfile", "library", "registry", "sandbox"}
    wrong = []
    for path in (CHECKOUT / "src").rglob("*.py"):
        text = path.read_text()
        spare = "\nTYPE_CHECKING = False\n" in text
        usual = "\nfrom typing import TYPE_CHECKING\n" in text
        is_off = not off.isdisjoint(path.relative_to(CHECKOUT).parts[:-1])
        if (spare if is_off else usual) or "from __future__" in text:
            wrong.append(str(path))
    assert wrong == []


# What a client of run and exec, a zygote, a monitor and ketch-oci load, and all that these import.
START = (
    "cgroups/*", "cli/execute", "cli/main", "cli/run", "engine/containers/containers",
    "engine/home/*", "engine/logs/*", "engine/monitor/*", "engine/networks/networks",
    "images/drivers", "runtime/*", "runtime/cli/*",
)  # fmt: skip


def test_records_have_their_fields_in_one_way_on_the_start_path_and_in_one_off_it() -> None:
    """Written out, with slots, where a class more takes a start's time; else as dataclasses."""
    source, trees = CHECKOUT / "src" / "ketch", _trees()
    on = {path for pattern in START for path in source.glob(f"{pattern}.py")}
    ahead = list(on)
    while ahead:
        new = set(_loaded(source, trees[ahead.pop()])) & trees.keys() - on
        on |= new
        ahead += new
    wrong = []
    for path, tree in trees.items():
        for record, has_slots in _records(tree):
            if path not in on or not has_slots:
                wrong.append(f"{path.relative_to(source)}: {record}")
    assert wrong == []
    assert len(on) > 150


def test_no_modules_load_each_other_in_a_circle() -> None:
    source, trees = CHECKOUT / "src" / "ketch", _trees()
    below = {path: set(_loaded(source, tree)) & trees.keys() for path, tree in trees.items()}
    while lowest := {path for path, loaded in below.items() if not loaded}:
        below = {path: loaded - lowest for path, loaded in below.items() if path not in lowest}
    assert sorted(str(path.relative_to(source)) for path in below) == []


@functools.cache
def _trees() -> dict[pathlib.Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in (CHECKOUT / "src/ketch").rglob("*.py")}


def _loaded(source: pathlib.Path, tree: ast.Module) -> Iterator[pathlib.Path]:
    """What a module imports when it is loaded."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ketch"):
            place = source.joinpath(*node.module.split(".")[1:])
            yield from (place / f"{alias.name}.py" for alias in node.names)
            yield place.with_suffix(".py")


def _records(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Classes that are written out to keep what they are given, and whether they have slots."""
    for one in ast.walk(tree):
        if not isinstance(one, ast.ClassDef):
            continue
        slots = any(ast.unparse(part).startswith("__slots__ =") for part in one.body)
        for part in one.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                given = [each.arg for each in part.args.args[1:] + part.args.kwonlyargs]
                kept = [ast.unparse(each) for each in part.body]
                if len(given) > 1 and sorted(kept) == sorted(f"self.{n} = {n}" for n in given):
                    yield one.name, slots


def test_no_annotation_says_a_method_where_it_means_a_type() -> None:
    """From Python 3.14 on it is read when somebody asks, and then ``list`` is the class's own."""
    wrong = []
    for path in (CHECKOUT / "src").rglob("*.py"):
        for owner in ast.walk(ast.parse(path.read_text())):
            if not isinstance(owner, ast.ClassDef):
                continue
            methods = [one for one in owner.body if isinstance(one, ast.FunctionDef)]
            names = {one.name for one in methods} & set(dir(builtins))
            wrong += [
                f"{path.relative_to(CHECKOUT)}: {owner.name}.{method.name}: {ast.unparse(said)}"
                for method in methods
                for said in _annotations(method)
                for part in ast.walk(said)
                if isinstance(part, ast.Name) and part.id in names
            ]
    assert wrong == []


def _annotations(method: ast.FunctionDef) -> Iterator[ast.expr]:
    arguments = method.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    yield from (one.annotation for one in every if one.annotation is not None)
    if method.returns is not None:
        yield method.returns
