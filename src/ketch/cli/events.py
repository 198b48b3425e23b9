"""``ketch events``: what happens to containers, images, networks and volumes."""

import sys
import time

from ketch.cli import usual_flags
from ketch.cli.documents import for_screen
from ketch.cli.flags import Command, Flag, UsageError, parse
from ketch.engine.records import events as record
from ketch.engine.records.store import Store
from ketch.errors import InvalidArgumentError, on_one_line
from ketch.spec import timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ketch.engine.records.events import Event
    from ketch.engine.settings import Settings
    from ketch.spec.template_functions import Struct

_BAD_FORMAT = 64  # Docker's, of this command

EVENTS = Command(
    "ketch events [OPTIONS]",
    "Get real time events from the server",
    (
        usual_flags.filters(),
        Flag("format", help="Format output: 'json' or a Go template"),
        Flag("since", help="Show all events created since timestamp"),
        Flag("until", help="Stream events until this timestamp"),
    ),
    maximum_arguments=0,
)


def events(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch events``."""
    parsed = parse(EVENTS, arguments)
    since, until = parsed.text("since"), parsed.text("until")
    now_ns = time.time_ns()
    since_ns = timestamps.moment(since, now_ns) if since else None
    until_ns = timestamps.moment(until, now_ns) if until else None
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise InvalidArgumentError(f"`since` time ({since}) cannot be after `until` time ({until})")
    fits = record.chooser(parsed.items("filter"))
    line = _writer(parsed.text("format"))
    try:
        for found in record.stream(Store(settings.root), since_ns=since_ns, until_ns=until_ns):
            text = "".join(f"{line(event)}\n" for event in found if fits(event))
            if text:
                sys.stdout.write(text)
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    return 0


def _message(document: "Mapping[str, Any]", actor: "Struct") -> "Struct":
    """Returns what a template has of an event, or, without any, its fields."""
    from ketch.spec.template_functions import Struct  # noqa: PLC0415 - as in ps

    names = {
        "Status": "status", "ID": "id", "From": "from", "Type": "Type", "Action": "Action",
        "Scope": "scope",
    }  # fmt: skip
    fields: dict[str, object] = {name: document.get(key, "") for name, key in names.items()}
    fields |= {"Actor": actor, "Time": document.get("time", 0)}
    return Struct(fields | {"TimeNano": document.get("timeNano", 0)}, "*events.Message")


def _writer(template: str) -> "Callable[[Event], str]":
    if not template:
        return _line
    from ketch.spec.template import ParseError, Template  # noqa: PLC0415 - as in ps
    from ketch.spec.template_functions import Struct  # noqa: PLC0415
    from ketch.spec.template_nodes import TemplateError  # noqa: PLC0415

    try:
        parsed = Template("{{json .}}" if template == "json" else template)
        # As Docker's: who has mistyped a field learns it before anything happens.
        parsed.check(_message({}, Struct({"ID": "", "Attributes": {}}, "events.Actor")))
    except (ParseError, TemplateError) as error:
        words = f"Error parsing format: {error.message}"
        raise UsageError(words, "", exit_status=_BAD_FORMAT) from error

    def line(event: "Event") -> str:
        document = event.document()
        actor = Struct(document["Actor"], "events.Actor")
        data = _message(document, actor)
        data.wire = Struct({**document, "Actor": actor})
        try:
            return for_screen(parsed.execute(data))
        except TemplateError as error:
            raise InvalidArgumentError(f"Error parsing format: {error.message}") from error

    return line


def _line(event: "Event") -> str:
    told = ", ".join(f"{name}={event.attributes[name]}" for name in sorted(event.attributes))
    text = f"{timestamps.local(event.time_ns)} {event.type} {event.action} {event.actor_id}"
    return on_one_line(f"{text} ({told})" if told else text)
