"""``ketch inspect``: everything about containers, as JSON or through a template."""

import json
import sys

from ketch.cli.flags import Command, Flag, parse
from ketch.engine import inspection
from ketch.engine.engine import Engine
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.spec.template_functions import Struct, plain, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings


def _only_containers(text: str) -> str:
    if text not in {"", "container"}:
        raise InvalidArgumentError(f"{text} is not something that can be inspected here")
    return text


INSPECT = Command(
    "ketch inspect [OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers",
    (
        Flag("format", "f", help="Format output: 'json' or a Go template"),
        Flag("type", help="Only inspect objects of the given type", convert=_only_containers),
    ),
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
    template = parsed.text("format")
    if template == "json":
        print(to_json(found))
    elif template:
        _print_each(found, template)
    else:
        print(json.dumps(plain(found), indent=4, ensure_ascii=False))
    for failure in failures:
        print(f"ketch: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _print_each(documents: list[Struct], template: str) -> None:
    from ketch.spec.template import Template  # noqa: PLC0415 - only --format needs it
    from ketch.spec.template_nodes import TemplateError  # noqa: PLC0415

    try:
        parsed = Template(template)
        for document in documents:
            print(parsed.execute(document))
    except TemplateError as error:
        raise InvalidArgumentError(f"template parsing error: {error.message}") from error
