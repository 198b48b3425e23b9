"""``ketch search``."""

import os
import sys

from ketch.cli import usual_flags
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import shortened, table
from ketch.images.registry import search as registry_search
from ketch.images.registry.registries import Registries
from ketch.spec.filters import Filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings
    from ketch.images.registry.search import Found

_SEARCH = Command(
    "ketch search [OPTIONS] TERM",
    "Search Docker Hub for images",
    [
        usual_flags.filters(),
        Flag("format", "", "string", "Pretty-print search using a Go template"),
        Flag("limit", "", "int", "Max number of search results"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
    ],
    minimum_arguments=1,
    maximum_arguments=1,
)  # fmt: skip

HEADS = {
    "Description": "DESCRIPTION", "IsAutomated": "AUTOMATED", "IsOfficial": "OFFICIAL",
    "Name": "NAME", "StarCount": "STARS",
}  # fmt: skip
_SHOWN = ("Name", "Description", "StarCount", "IsOfficial")
_DESCRIPTION_LENGTH = 45


def search(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Look for images."""
    parsed = parse(_SEARCH, arguments)
    filters = Filters(parsed.items("filter"), registry_search.FILTERS)
    with Registries(os.environ) as registries:
        found = registry_search.search(
            registries, parsed.arguments[0], parsed.number("limit"), filters
        )
    template, whole = parsed.text("format"), parsed.enabled("no-trunc")
    rows = [_fields(image, whole=whole, for_json=template == "json") for image in found]
    if template in {"", "table"}:
        lines = [[HEADS[name] for name in _SHOWN]]
        lines += [[row[name] for name in _SHOWN] for row in rows]
        sys.stdout.write(table(lines))
        return 0
    from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates
    from ketch.spec.template_functions import Struct  # noqa: PLC0415

    structs = [Struct(row, "searchContext") for row in rows]
    sys.stdout.write(formats.render(structs, template, Struct(dict(HEADS), "searchContext")))
    return 0


def _fields(image: "Found", *, whole: bool, for_json: bool) -> dict[str, str]:
    description = _plain(image.description)
    yes, no = ("true", "false") if for_json else ("[OK]", "")
    return {
        "Description": description if whole else shortened(description, _DESCRIPTION_LENGTH),
        "IsAutomated": yes if image.automated else no,
        "IsOfficial": yes if image.official else no,
        "Name": _plain(image.name),
        "StarCount": str(image.stars),
    }


def _plain(text: str) -> str:
    """Keep a stranger's text to one line, and from speaking to the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
