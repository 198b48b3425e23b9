"""What every ``inspect`` prints: documents as JSON, whole or through a template."""

import json
import sys

from ketch.cli.flags import UsageError
from ketch.errors import InvalidArgumentError, KetchError, spelt_out
from ketch.spec.template_functions import Struct, legible, plain, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_UNREADABLE = 64  # docker's exit status for a template that cannot be read


def show(names: "Iterable[str]", find: "Callable[[str], Struct]", template: str) -> int:
    """Print what is known of some things, and on standard error what is not.

    Args:
        names: the things.
        find: returns one's document; raises KetchError where there is none.
        template: ``json`` for one line, empty for indented JSON, else a Go template for each.

    Returns:
        1 if something was not found, else 0.

    Raises:
        InvalidArgumentError: the template is wrong.
    """
    found, failures = [], []
    for name in names:
        try:
            found.append(find(name))
        except KetchError as error:
            failures.append(error.message)
    if template == "json":
        print(to_json(found))
    elif template:
        _print_each(found, template)
    else:
        print(legible(json.dumps(plain(found), indent=4, ensure_ascii=False)))
    sys.stdout.flush()
    for failure in failures:
        print(f"ketch: {failure}", file=sys.stderr)
    return 1 if failures else 0


def for_screen(text: str) -> str:
    """Returns what a template has made, for standard output.

    A program gets it as it is; a terminal nothing that a stranger in it could say to the terminal.
    """
    return spelt_out(text) if sys.stdout.isatty() else text


def _print_each(documents: list[Struct], template: str) -> None:
    from ketch.spec.template import ParseError, Template  # noqa: PLC0415 - only --format needs it
    from ketch.spec.template_nodes import TemplateError  # noqa: PLC0415

    try:
        parsed = Template(template)
        for document in documents:
            print(for_screen(parsed.execute(document)))
    except ParseError as error:
        message = f"template parsing error: {error.message}"
        raise UsageError(message, "", exit_status=_UNREADABLE) from error
    except TemplateError as error:
        raise InvalidArgumentError(f"template parsing error: {error.message}") from error


def formatted(document: "dict[str, Any]", template: str, type_name: str) -> None:
    """Print one document through a template.

    Args:
        document: what is known.
        template: ``json``, or a Go template.
        type_name: what Go calls its type in messages.

    Raises:
        InvalidArgumentError: the template is wrong.
    """
    from ketch.spec.template import ParseError, Template  # noqa: PLC0415 - only --format needs it
    from ketch.spec.template_nodes import TemplateError  # noqa: PLC0415

    data = _structured(document)
    assert isinstance(data, Struct)
    data.type_name = type_name
    if template == "json":
        print(to_json(data))
        return
    try:
        print(for_screen(Template(template).execute(data)))
    except ParseError as error:
        raise InvalidArgumentError(f"template parsing error: {error.message}") from error
    except TemplateError as error:
        raise InvalidArgumentError(error.message) from error


def _structured(value: object) -> object:
    """Let objects have fields rather than keys."""
    if isinstance(value, dict):
        optional = value.optional if isinstance(value, Struct) else ()
        return Struct({name: _structured(field) for name, field in value.items()}, "", optional)
    if isinstance(value, list):
        return [_structured(element) for element in value]
    return value
