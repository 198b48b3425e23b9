"""The course's pages: their commands, what they say is printed, and how that is compared.

A page's commands stand in blocks of ``console``: after ``# `` what is typed, ``> `` its further
lines, all else what is then printed. A word before ``# `` says in which shell one is by then, to
the reader alone. ``...`` in what is printed stands for anything, on a line by itself for any lines.
What varies (``<!-- varies: PATTERN -->`` before a block, and what VARIES has) may be anything of
the pattern; but what is the same twice on the page has to be the same twice.

A block for some machines alone has a word behind ``console``: see ``Block.only``.
"""

import os
import pathlib
import re
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.images import CHECKOUT

COURSE = CHECKOUT / "docs" / "course"
PAGES = sorted(path.name for path in COURSE.glob("*.md"))

VARIES = (
    r"\b402\d{7}\b",  # a namespace
    r"\b[0-9a-f]{64}\b",  # a digest, or a container's ID
    r"\b[0-9a-f]{12}\b",
)

_BLOCK = re.compile(
    r"((?:^<!-- varies: [^\n]+ -->\n)*)^( *)```console ?(\w*)\n(.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_PATTERN = re.compile(r"^<!-- varies: (.+) -->$", re.MULTILINE)
_TYPED = re.compile(r"^(?:\w+)?# (.*)$")
END = "-- so much for that: "


@dataclass
class Step:
    """A command, and what it prints."""

    typed: str
    printed: str = ""


@dataclass
class Block:
    """Commands that stand together.

    Attributes:
        only: ``v1`` or ``v2``: only where control groups are of that version.
        varies: patterns of what is printed otherwise each time.
        steps: the commands.
    """

    only: str
    varies: tuple[str, ...]
    steps: list[Step] = field(default_factory=list)


def blocks(path: pathlib.Path) -> list[Block]:
    """Read a page."""
    found = []
    for match in _BLOCK.finditer(path.read_text(encoding="utf-8")):
        block = Block(match[3], (*_PATTERN.findall(match[1]), *VARIES))
        for line in [one.removeprefix(match[2]) for one in match[4].splitlines()]:
            if typed := _TYPED.match(line):
                block.steps.append(Step(typed[1]))
            elif line.startswith("> ") or line == ">":
                block.steps[-1].typed += "\n" + line[2:]
            else:
                block.steps[-1].printed += line + "\n"
        found.append(block)
    return found


def expected(block: Block) -> re.Pattern[str]:
    """Return the pattern of all that a block says is printed, each command's end included."""
    varies = re.compile("|".join(f"(?P<v{n}>{one})" for n, one in enumerate(block.varies)))
    seen: dict[str, str] = {}

    def literal(text: str) -> str:
        parts, at = [], 0
        for match in varies.finditer(text):
            parts.append(re.escape(text[at : match.start()]))
            if match[0] in seen:
                parts.append(f"(?P={seen[match[0]]})")
            else:
                name = seen[match[0]] = f"seen{len(seen)}"
                kind = next(n for n in range(len(block.varies)) if match[f"v{n}"] is not None)
                parts.append(f"(?P<{name}>{block.varies[kind]})")
            at = match.end()
        return "".join(parts) + re.escape(text[at:])

    pattern = ""
    for step in block.steps:
        for line in step.printed.splitlines():
            if line == "...":
                pattern += r"(?:.*\n)*?"
            else:
                pattern += ".*?".join(map(literal, line.split("..."))) + r"\n"
        pattern += re.escape(END) + r"\d+\n"
    return re.compile(pattern)


class Shell:
    """A shell in the lab, whose commands are given one by one.

    Args:
        words: what starts it.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, bufsize=1,
        )  # fmt: skip

    def type(self, command: str, seconds: float = 60) -> str:
        """Type a command; return what it and what still runs behind it printed until its end."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{command}\necho '{END}'$?\n")
        process.stdin.flush()
        printed = ""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not re.search(rf"^{END}\d+\n\Z", printed, re.MULTILINE):
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise TimeoutError(f"{command}\n{printed}")
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    raise EOFError(f"the shell has ended: {command}\n{printed}")
                printed += data.decode(errors="replace")
                # A command may leave its last line without an end.
                printed = re.sub(rf"([^\n])({END})", r"\1\n\2", printed)
        return re.sub(r"[ \t]+$", "", printed, flags=re.MULTILINE)

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def play(shell: Shell, block: Block) -> str:
    """Type a block's commands; return what was printed, each command's end included."""
    return "".join(shell.type(step.typed) for step in block.steps)


def shown(block: Block, printed: str) -> str:
    """Return a block as it would stand on a page, with what was printed."""
    parts = re.split(rf"^{END}\d+\n", printed, flags=re.MULTILINE)
    lines = []
    for step, part in zip(block.steps, parts, strict=False):
        lines.append("# " + step.typed.replace("\n", "\n> ") + "\n" + part)
    return "".join(lines)
