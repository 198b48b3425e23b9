"""Write docs/man from what commands say of themselves; a test compares the two."""

import pathlib
import sys
from itertools import starmap

from ketch.cli import main, overview
from ketch.cli.complete import accepted
from ketch.cli.flags import Command, Flag

PLACE = pathlib.Path(__file__).parents[1] / "docs" / "man"

_ENVIRONMENT = {
    "DOCKER_CONFIG": "Directory of the registries' credentials, ~/.docker where unset.",
    "KETCH_DEBUG": "Set to 1, errors of ketch's own come with the place in its code.",
    "KETCH_REGISTRIES": "File that says how registries are reached, instead of "
    "/etc/ketch/registries.json.",
    "KETCH_ROOT": "As --root.",
    "KETCH_STATE": "As --state.",
    "KETCH_STORAGE_DRIVER": "As --storage-driver.",
    "SOURCE_DATE_EPOCH": "Seconds since 1970, which builds write for every time.",
}
_FILES = {
    "/etc/ketch/config.json": "What is said for the whole engine.",
    "/etc/ketch/registries.json": "Mirrors, certificates and insecure registries.",
    "/var/lib/ketch": "What lasts: database, images, containers, volumes.",
    "/run/ketch": "What a reboot may lose: sockets and pids.",
}
_STATUS = """\
That of the container's program for run, exec and start \\-a; else 0, or 1 for a command that
failed. 125 where ketch itself failed or the command line is wrong, 126 where the program was found
and may not be executed, 127 where it was not found."""


def pages() -> dict[str, str]:
    """Return all pages by file name."""
    found = {"ketch.1": _whole()}
    for name in main.COMMANDS:
        found[f"ketch-{name}.1"] = _page(accepted([name])[0])
    for group, members in main.GROUPS.items():
        found[f"ketch-{group}.1"] = _group(group)
        for name, member in members.items():
            if not isinstance(member, str) and name not in overview.ALIASES:
                found[f"ketch-{group}-{name}.1"] = _page(accepted([group, name])[0])
    return found


def _whole() -> str:
    program = main.program()
    commands = [(f"ketch-{name}", what) for name, (_, _, what) in sorted(main.COMMANDS.items())]
    groups = [(f"ketch-{name}", what) for name, what in sorted(overview.GROUPS.items())]
    return "".join([
        _head(program.path, program.summary, program.usage),
        _section("DESCRIPTION", _text(
            "ketch makes, runs and watches containers without a daemon: each command does its work "
            "itself. Commands, flags, output and exit status are Docker's. Without root, all goes "
            "by user namespaces."
        )),
        _section("COMMANDS", "".join(_reference(*one) for one in commands)),
        _section("GROUPS OF COMMANDS", "".join(_reference(*one) for one in groups)),
        _section("OPTIONS", _options(program.flags)),
        _section("EXIT STATUS", _STATUS),
        _section("ENVIRONMENT", "".join(starmap(_reference_to, _ENVIRONMENT.items()))),
        _section("FILES", "".join(starmap(_reference_to, _FILES.items()))),
    ])  # fmt: skip


def _group(group: str) -> str:
    members = overview.listed(group, main.GROUPS[group], main.COMMANDS)
    lines = []
    for name, what in members:
        member = main.GROUPS[group][name]
        page = f"ketch-{member}" if isinstance(member, str) else f"ketch-{group}-{name}"
        lines.append(
            _item(f"{_bold(f'ketch {group} {name}')}", f"{_text(what)}, see {_page_of(page)}")
        )
    return (
        _head(f"ketch {group}", overview.GROUPS[group], f"ketch {group} COMMAND")
        + _section("COMMANDS", "".join(lines))
        + _see_also()
    )


def _page(command: Command) -> str:
    names = overview.names(command.path, main.COMMANDS, main.GROUPS)
    other = [name for name in names if name != command.path]
    parts = [_head(command.path, command.summary, command.usage)]
    if other:
        parts.append(_section("OTHER NAMES", ",\n".join(map(_bold, other))))
    if command.flags:
        parts.append(_section("OPTIONS", _options(command.flags)))
    return "".join(parts) + _see_also()


def _head(path: str, summary: str, usage: str) -> str:
    title = path.replace(" ", "-")
    words = usage.removeprefix(path).strip()
    return (
        f'.\\" Made by scripts/man_pages.py\n.TH {_text(title.upper())} 1 "" ketch "ketch"\n'
        f".SH NAME\n{_text(title)} \\- {_text(summary)}\n"
        f".SH SYNOPSIS\n{_bold(path)} {_text(words)}".rstrip()
        + "\n"
    )


def _options(flags: tuple[Flag, ...]) -> str:
    return "".join(_option(flag) for flag in sorted(flags, key=lambda flag: flag.name))


def _option(flag: Flag) -> str:
    names = [_bold(f"--{name}") for name in (flag.name, *flag.aliases)]
    if flag.shorthand:
        names.insert(0, _bold(f"-{flag.shorthand}"))
    value = f" {_italic(flag.metavar)}" if flag.metavar else ""
    return _item(", ".join(names) + value, _text(flag.help))


def _reference(page: str, what: str) -> str:
    return _item(_page_of(page), _text(what))


def _reference_to(name: str, what: str) -> str:
    return _item(_bold(name), _text(what))


def _page_of(page: str) -> str:
    return f"{_bold(page)}(1)"


def _see_also() -> str:
    return _section("SEE ALSO", _page_of("ketch"))


def _section(title: str, body: str) -> str:
    return f".SH {title}\n{body.rstrip()}\n"


def _item(head: str, body: str) -> str:
    return f".TP\n{head}\n{body}\n"


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_text(text)}\\fR"


def _text(text: str) -> str:
    """Return text as roff has it: no line begins a request, hyphens stay what is typed."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(
        f"\\&{line}" if line[:1] in {".", "'"} else line for line in escaped.split("\n")
    )


if __name__ == "__main__":
    PLACE.mkdir(exist_ok=True)
    wanted = pages()
    for path in PLACE.glob("*.1"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (PLACE / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(wanted)} pages in {PLACE}\n")
