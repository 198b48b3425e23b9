"""``ketch stats``: what containers use, once or again and again."""

import sys
import time

from ketch.cli import client_configuration
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import table
from ketch.cli.usual_flags import LIST_FORMAT
from ketch.engine.engine import Engine
from ketch.engine.views.statistics import Figures, Sampler
from ketch.errors import NotFoundError
from ketch.spec.sizes import binary_size, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.flags import Parsed
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

STATS = Command(
    "ketch stats [OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    (
        Flag("all", "a", "bool", "Show all containers (default shows just running)"),
        LIST_FORMAT,
        Flag("no-stream", "", "bool", "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", "", "bool", "Do not truncate output"),
    ),
)

HEADS = {
    "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip
_FIELDS = (
    "BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs",
)  # fmt: skip

_SAMPLE_SECONDS = 1.0
_FIRST_SECONDS = 0.5
_SHORT = 12


def stats(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch stats``."""
    parsed = parse(STATS, arguments)
    engine = Engine(settings)
    sampler = Sampler(settings)
    names = parsed.arguments
    chosen = [(name, engine.containers.find(name).id) for name in names]
    once = parsed.enabled("no-stream")
    template = client_configuration.list_format("statsFormat", parsed.text("format"))

    def look() -> "list[tuple[str, Container]]":
        if not names:
            found = engine.containers.list(all=parsed.enabled("all"))
            return [(container.id[:_SHORT], container) for container in found]
        there = []
        for name, container_id in chosen:
            try:
                there.append((name, engine.containers.find(container_id)))
            except NotFoundError:
                sampler.forget(container_id)
        return there

    try:
        # The first sample only serves the second, which says how much was used since.
        for _, container in look():
            sampler.sample(container)
        pause_seconds = _FIRST_SECONDS
        while True:
            time.sleep(pause_seconds)
            pause_seconds = _SAMPLE_SECONDS
            found = look()
            if names and not found and not once:
                return 0
            rows = [
                _row(name, container, Figures(sampler.sample(container)), parsed)
                for name, container in found
            ]
            _show(_text(rows, template), again=not once)
            if once:
                return 0
    except KeyboardInterrupt:
        return 0


def _show(text: str, *, again: bool) -> None:
    if again:
        # To the top; what a line or the whole screen had more before is wiped out.
        body = "".join(f"{line}\033[K\n" for line in text.splitlines())
        text = f"\033[H{body}\033[J"
    sys.stdout.write(text)
    sys.stdout.flush()


def _text(rows: list[dict[str, str]], template: str) -> str:
    if template in {"", "table"}:
        return table([[*HEADS.values()], *([row[name] for name in HEADS] for row in rows)])
    from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates
    from ketch.spec.template_functions import Struct  # noqa: PLC0415

    structs = [Struct({name: row[name] for name in _FIELDS}, "container") for row in rows]
    heads = {name: HEADS.get(name, "CONTAINER") for name in _FIELDS}
    return formats.render(structs, template, Struct(heads, "container"))


def _row(name: str, container: "Container", figures: Figures, parsed: "Parsed") -> dict[str, str]:
    memory, limit = binary_size(figures.memory_bytes), binary_size(figures.memory_limit_bytes)
    return {
        "Container": name,
        "ID": container.id if parsed.enabled("no-trunc") else container.id[:_SHORT],
        "Name": container.name,
        "CPUPerc": f"{figures.cpu_percent:.2f}%",
        "MemUsage": f"{memory} / {limit}",
        "MemPerc": f"{figures.memory_percent:.2f}%",
        "NetIO": f"{size(figures.received_bytes)} / {size(figures.sent_bytes)}",
        "BlockIO": f"{size(figures.read_bytes)} / {size(figures.written_bytes)}",
        "PIDs": str(figures.tasks),
    }
