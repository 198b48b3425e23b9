"""``ketch image inspect`` and ``ketch history``."""

import sys
import time

from ketch.cli.documents import show
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import shortened, table
from ketch.cli.usual_flags import DOCUMENT_FORMAT, LIST_FORMAT
from ketch.engine.images import inspection
from ketch.engine.images.images import Images
from ketch.engine.records.store import Store
from ketch.spec import image as documents
from ketch.spec import timestamps
from ketch.spec.sizes import size
from ketch.spec.template_functions import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.images.inspection import Step
    from ketch.engine.settings import Settings

_INSPECT = Command(
    "ketch image inspect [OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    [
        DOCUMENT_FORMAT,
        Flag("platform", "", "string", "Inspect a specific platform of the image"),
    ],
    minimum_arguments=1,
)
_HISTORY = Command(
    "ketch history [OPTIONS] IMAGE",
    "Show the history of an image",
    [
        LIST_FORMAT,
        Flag("human", "H", "bool", "Print sizes and dates in human readable format", default=True),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("platform", "", "string", "Show history for the given platform (os[/arch[/variant]])"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
    ],
    minimum_arguments=1,
    maximum_arguments=1,
)  # fmt: skip

_HEADS = {
    "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
}  # fmt: skip
_COMMAND_LENGTH = 45


def inspect(settings: "Settings", arguments: list[str]) -> int:
    """Show all that is known of images."""
    parsed = parse(_INSPECT, arguments)
    engine = Images(settings, Store(settings.root))
    platform = parsed.text("platform")

    def find(text: str) -> Struct:
        image = engine.resolve(text)
        if platform:
            engine.check_platform(image, [documents.parse_platform(platform)])
        return inspection.document(engine, image)

    return show(parsed.arguments, find, parsed.text("format"))


def history(settings: "Settings", arguments: list[str]) -> int:
    """Show the steps by which an image came about."""
    parsed = parse(_HISTORY, arguments)
    engine = Images(settings, Store(settings.root))
    image = engine.resolve(parsed.arguments[0])
    if parsed.text("platform"):
        engine.check_platform(image, [documents.parse_platform(parsed.text("platform"))])
    now_ns = time.time_ns()
    rows = [
        _fields(step, now_ns, whole=parsed.enabled("no-trunc"), human=parsed.enabled("human"))
        for step in inspection.history(engine, image)
    ]
    template = parsed.text("format")
    if parsed.enabled("quiet") and template in {"", "table"}:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
    elif template in {"", "table"}:
        hidden = "CreatedAt" if parsed.enabled("human") else "CreatedSince"
        shown = [name for name in _HEADS if name != hidden]
        lines = [[_HEADS[name] for name in shown], *([row[name] for name in shown] for row in rows)]
        sys.stdout.write(table(lines))
    else:
        from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates

        structs = [Struct(dict(sorted(row.items())), "historyContext") for row in rows]
        sys.stdout.write(formats.render(structs, template, Struct(dict(_HEADS), "historyContext")))
    return 0


def _fields(step: "Step", now_ns: int, *, whole: bool, human: bool) -> dict[str, str]:
    known = step.created_ns > timestamps.UNKNOWN_NS
    moment = time.localtime(step.created_ns // timestamps.SECOND_NS) if known else None
    zone = time.strftime("%z", moment) if moment else ""
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    created_at = time.strftime("%Y-%m-%dT%H:%M:%S", moment) + zone if moment else "N/A"
    since = f"{timestamps.spoken(now_ns - step.created_ns)} ago" if known else "N/A"
    command = step.created_by.replace("\t", " ")
    named = step.image_id != inspection.MISSING
    return {
        "ID": step.image_id if whole or not named else step.image_id.partition(":")[2][:12],
        "CreatedSince": since if human else created_at,
        "CreatedAt": created_at,
        "CreatedBy": command if whole else shortened(command, _COMMAND_LENGTH),
        "Size": size(step.size_bytes) if human else str(step.size_bytes),
        "Comment": step.comment,
    }
