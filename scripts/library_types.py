"""Write what type checkers and editors read of the library from what it is made of.

``ketch/library/keywords.py``, the keywords of ``run``, ``create`` and ``update``, comes from the
options table; ``ketch/aio.pyi``, the awaited methods, from the library's classes. A test compares.
"""

import ast
import pathlib
import re
import subprocess
import sys

from ketch.engine.containers import updating
from ketch.library import building
from ketch.library.docker_names import ALIASES, FIELDS, FORMS
from ketch.library.options import KNOWN
from ketch.spec.flag import Flag

SOURCE = pathlib.Path(__file__).parents[1] / "src" / "ketch"
KEYWORDS = SOURCE / "library" / "keywords.py"
AWAITED = SOURCE / "aio.pyi"

_MODULES = (
    "library/resources", "library/archives", "library/sessions", "library/images",
    "library/container", "library/containers", "library/networks", "library/volumes",
    "library/engine", "sandbox/files", "sandbox/programs", "sandbox/sandbox",
    "sandbox/awaited_pool",
)  # fmt: skip
# The library's classes that have a counterpart for asyncio.
_CLASSES = (
    "Archive", "Session", "Image", "Images", "Container", "Containers", "Network", "Networks",
    "Volume", "Volumes", "Engine", "Files", "Process", "Sandbox", "Pool",
)  # fmt: skip

# The names that change their spelling with their meaning; others with an underscore are left out.
_SPECIAL = {"__enter__": "__aenter__", "__exit__": "__aexit__", "__iter__": "__aiter__"}
_MARKS = {"property", "overload", "classmethod"}
# The classes whose objects are made by calling them.
_MADE_DIRECTLY = ("Engine", "Pool")
# What is set where an object is made.
_ATTRIBUTES = {
    "Resource": "    id: str\n    attrs: dict[str, Any]\n",
    "Session": "    id: str\n    exit_status: int | None\n    warnings: list[str]\n",
    "Engine": "    containers: Containers\n    images: Images\n    networks: Networks\n"
              "    volumes: Volumes\n",
    "Sandbox": "    files: Files\n",
}  # fmt: skip
# The types of values that have forms of docker-py's.
_FORMS = {
    "device_requests": "Documents", "entrypoint": "str | Iterable[str]",
    "healthcheck": "Mapping[str, object]", "log_config": "Mapping[str, object]",
    "mounts": "Documents", "nano_cpus": "int", "network_disabled": "bool",
    "networking_config": "Mapping[str, object]",
    "ports": "Mapping[int, object] | Mapping[str, object]",
    "restart_policy": "str | Mapping[str, object]", "user": "str | int",
}  # fmt: skip
_PLAIN = {
    **dict.fromkeys(("Change", "LogEntry", "Result"), "library.container"),
    "Entry": "sandbox.files", "ProjectChange": "sandbox.changes", "RunResult": "sandbox.programs",
}  # fmt: skip

_KEYWORDS_HEAD = '''"""The keywords of ``run``, ``create`` and ``update``, for type checkers.

Made from the table in ``spec/options.py`` by ``scripts/library_types.py``; change that, not this.
"""

from collections.abc import Iterable, Mapping
from typing import TypedDict

Amount = str | int | float
"""A number, or a text with a unit: ``"64m"``, ``"1.5s"``."""

Several = str | Iterable[str] | Mapping[str, object]
"""What may be given several times: one text, several, or a mapping for NAME=VALUE."""

Documents = Iterable[Mapping[str, object]]
"""Several of docker-py's types, which are mappings in the API's keys; or mappings like these."""

'''
_AWAITED_HEAD = '''"""The types of ``ketch.aio``: the library's, with methods that are awaited.

Made from the library's classes by ``scripts/library_types.py``; change them, not this.
"""

'''


def keywords() -> str:
    """Returns the module with the keywords."""
    return (
        _KEYWORDS_HEAD
        + _typed_dict("RunOptions", "What ``run``, ``start`` and ``create`` know.", KNOWN)
        + "\n"
        + _typed_dict("UpdateOptions", "What ``Container.update`` knows.", updating.OPTIONS)
        + "\n"
        + _typed_dict("BuildOptions", "What ``Images.build`` knows.", building.KNOWN)
    )


def _typed_dict(name: str, meaning: str, options: tuple[Flag, ...]) -> str:
    known = {option.name: option for option in options}
    types = {name.replace("-", "_"): _type(option) for name, option in known.items()}
    types |= {alias: _type(known[of]) for alias, of in ALIASES.items() if of in known}
    if options is KNOWN:
        types |= dict.fromkeys(FIELDS, "Several")
    types |= {name: f"{types[name]} | Documents" for name in FORMS if types.get(name) == "Several"}
    types |= {name: form for name, form in _FORMS.items() if name in types}
    fields = "".join(f"    {name}: {types[name]} | None\n" for name in sorted(types))
    return f'\nclass {name}(TypedDict, total=False):\n    """{meaning}"""\n\n{fields}'


def _type(option: Flag) -> str:
    if option.kind in {"bool", "int"}:
        return option.kind
    if option.kind == "list":
        return "Several"
    return "Amount" if isinstance(option.default, int) else "str"


def awaited() -> str:
    """Returns the stub of ``ketch.aio``."""
    trees = [ast.parse((SOURCE / f"{name}.py").read_text()) for name in _MODULES]
    statements = [statement for tree in trees for statement in _statements(tree)]
    classes = {node.name: node for node in statements if isinstance(node, ast.ClassDef)}
    body = "".join(_class(classes[name], classes["Resource"]) for name in _CLASSES)
    bare = re.sub(r'""".*?"""', "", body, flags=re.DOTALL)
    aliases = {
        statement.targets[0].id: ast.unparse(statement) for statement in statements
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }  # fmt: skip
    used = "".join(f"{text}\n" for name, text in aliases.items() if _mentions(bare, name))
    imports = {
        name: line for statement in statements for name, line in _imported(statement)
        if name not in {*_CLASSES, *aliases} and _mentions(used + bare, name)
    }  # fmt: skip
    # What these are called here is what is awaited; the plain ones are told of by name.
    imports |= {name: f"from ketch.{module} import {name}" for name, module in _PLAIN.items()}
    imports["AsyncIterator"] = "from collections.abc import AsyncIterator"
    return _formatted(_AWAITED_HEAD + "\n".join([*imports.values(), used, body]))


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """Returns a module's statements, those for type checkers alone included."""
    checked = [node for node in tree.body if isinstance(node, ast.If)]
    return [*tree.body, *(statement for node in checked for statement in node.body)]


def _imported(statement: ast.stmt) -> list[tuple[str, str]]:
    """Returns the names that an import binds, and an import of each alone."""
    if isinstance(statement, ast.ImportFrom):
        return [
            (one.asname or one.name, ast.unparse(ast.ImportFrom(statement.module, [one], 0)))
            for one in statement.names
        ]
    if isinstance(statement, ast.Import):
        return [(one.asname or one.name, ast.unparse(statement)) for one in statement.names]
    return []


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.]){name}\b", text) is not None


def _class(node: ast.ClassDef, resource: ast.ClassDef) -> str:
    bases = {ast.unparse(base) for base in node.bases}
    parts = list(node.body)
    if "Resource" in bases:
        own = {part.name for part in parts if isinstance(part, ast.FunctionDef)}
        parts += [
            part for part in resource.body
            if isinstance(part, ast.FunctionDef) and part.name not in own
        ]  # fmt: skip
    made = "".join(
        _method(part, node.name) for part in parts
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    )  # fmt: skip
    attributes = _ATTRIBUTES.get(node.name, _ATTRIBUTES["Resource"] if "Resource" in bases else "")
    return f"\nclass {node.name}:\n{_docstring(node)}{attributes}{made}"


def _docstring(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    indent = "    " if isinstance(node, ast.ClassDef) else "        "
    lines = (ast.get_docstring(node) or "").replace("\\", "\\\\").splitlines()
    if not lines:
        return f"{indent}...\n"
    end = "" if len(lines) == 1 else f"\n{indent}"
    text = "\n".join(f"{indent}{line}" if line else "" for line in lines).strip()
    return f'{indent}"""{text}{end}"""\n'


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef, of: str) -> str:
    special = {*_SPECIAL, *_SPECIAL.values(), *(["__init__"] if of in _MADE_DIRECTLY else [])}
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    name = _SPECIAL.get(node.name, node.name)
    if node.name.startswith("_") and node.name not in special:
        return ""
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg) and argument.annotation is not None:
            argument.annotation = _read(argument.annotation)
    arguments = ast.unparse(node.args)
    returned = ast.unparse(_read(node.returns)) if node.returns else "None"
    overloaded = "overload" in decorators
    if "property" in decorators:
        word = "def"
    elif re.match(r"Iterator\b", returned):
        word, returned = "def", f"Async{returned}"
    elif re.match(r"AsyncIterator\b", returned):
        word = "def"
    elif returned == "Container | bytes":
        return ""  # what the overloads say together
    else:
        word = "def" if node.name == "__init__" else "async def"
    marks = "".join(f"    @{mark}\n" for mark in decorators if mark in _MARKS)
    text = "        ...\n" if overloaded else _docstring(node)
    return f"{marks}    {word} {name}({arguments}) -> {returned}:\n{text}"


def _read(annotation: ast.expr) -> ast.expr:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def _formatted(text: str) -> str:
    """Returns a stub as ruff has it: imports in order, lines of one length."""
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--select=I,F401", "--fix", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [*ruff, *command, f"--stdin-filename={AWAITED}", "-"],
            input=text, capture_output=True, text=True, check=True,
        )  # fmt: skip
        text = done.stdout
    return text


if __name__ == "__main__":
    KEYWORDS.write_text(keywords(), encoding="utf-8")
    AWAITED.write_text(awaited(), encoding="utf-8")
    sys.stdout.write(f"{KEYWORDS}\n{AWAITED}\n")
