"""``ketch inspect``: everything about containers, as JSON or through a template."""

import json
import sys

from ketch.cli.flags import Command, parse
from ketch.engine import inspection
from ketch.engine.engine import Engine
from ketch.errors import KetchError, NotFoundError
from ketch.spec.template_functions import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

INSPECT = Command(
    "ketch inspect [OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers",
    (),
    minimum_arguments=1,
    aliases=("ketch container inspect", "ketch inspect"),
)


def inspect(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch inspect``."""
    parsed = parse(INSPECT, arguments)
    engine = Engine(settings)
    found, failures = [], []
    for reference in parsed.arguments:
        try:
            found.append(inspection.document(engine, engine.containers.find(reference)))
        except NotFoundError:
            failures.append(f"No such object: {reference}")
        except KetchError as error:
            failures.append(error.message)
    print(json.dumps([plain(document) for document in found], indent=4, ensure_ascii=False))
    for failure in failures:
        print(f"ketch: {failure}", file=sys.stderr)
    return 1 if failures else 0
