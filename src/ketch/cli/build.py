"""``ketch build``: an image from a Dockerfile."""

import contextlib
import json
import os
import sys

from ketch.build import asking
from ketch.cli import build_progress
from ketch.cli.caller import client_configuration, explained
from ketch.cli.flags import Command, Parsed, parse
from ketch.engine.files import appearing
from ketch.errors import InvalidArgumentError, spelt_out
from ketch.spec import values
from ketch.spec.build_flags import FLAGS
from ketch.spec.dockerfile.errors import report
from ketch.spec.flag import Flag
from ketch.spec.told import Told

_RESULT_MODE = 0o644

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.build.request import Request, Result
    from ketch.engine.settings import Settings

_CALL = (
    Flag("call", "", "string", 'Ask about the Dockerfile instead ("check", "outline", "targets")',
         default="build"),
    Flag("check", "", "bool", 'Shorthand for "--call=check"'),
)  # fmt: skip

BUILD = Command(
    "ketch build [OPTIONS] PATH | URL | -",
    "Start a build",
    tuple(sorted((*FLAGS, *_CALL), key=lambda flag: flag.name)),
    minimum_arguments=1,
    maximum_arguments=1,
)


def build(settings: "Settings", arguments: list[str]) -> int:
    """Build an image."""
    parsed = parse(BUILD, arguments)
    quiet = parsed.enabled("quiet")
    if quiet and parsed.text("progress") not in {"", "auto", "quiet"}:
        raise InvalidArgumentError(
            f"progress={parsed.text('progress')} and quiet cannot be used together"
        )
    with contextlib.ExitStack() as held:
        # Not through a buffer, or nobody could be called off who waits for it.
        stdin = open(0, "rb", buffering=0, closefd=False) if sys.stdin is not None else None
        written = client_configuration()
        proxies = written.proxies(parsed.items("build-arg")) if written is not None else ()
        caller = asking.Caller(os.environ, stdin, proxies)
        request = asking.request(parsed, parsed.arguments[0], caller, held)
        mode = "quiet" if quiet else parsed.text("progress")
        display = build_progress.display(mode, sys.stderr)
        question, form = _question(parsed)
        if question:
            return _answer(settings, request, display, question, form)
        with explained(settings, parsed):
            result = _run(settings, request, display)
    if mode not in {"quiet", "rawjson"}:
        sys.stderr.write(build_progress.summary(display.trace.warnings))
        sys.stderr.write(spelt_out(result.warning))
    _write_results(parsed, result)
    if quiet and result.identifier:
        print(result.identifier)
    return 0


def _run(settings: "Settings", request: "Request", display: build_progress.Display) -> "Result":
    """Build, and show it."""
    from ketch.build import builder  # noqa: PLC0415 - after what the command line has wrong
    from ketch.engine.engine import Engine  # noqa: PLC0415

    def explain(line: str) -> None:
        settings.tell(Told, "plan", line)

    with _shown(display):
        return builder.build(
            Engine(settings), request, display.take, explain=explain if settings.say else None
        )


@contextlib.contextmanager
def _shown(display: build_progress.Display) -> "Iterator[None]":
    """Show what goes on in a block, and the lines that are to blame where it comes to nothing."""
    try:
        with display.going_on():
            yield
    except Exception as error:
        if excerpt := getattr(error, "excerpt", ""):
            sys.stderr.write(excerpt)
        error.exit_status = 1  # type: ignore[attr-defined] # whatever a step's program ended with
        raise


def _question(parsed: Parsed) -> tuple[str, str]:
    """Returns what is asked instead of building, empty for nothing, and in which form.

    Raises:
        InvalidArgumentError: nobody knows such a question.
    """
    name, *options = values.fields(parsed.text("call"))
    name = name.removeprefix("type=")
    if parsed.enabled("check"):
        if name not in {"build", "check"}:
            raise InvalidArgumentError("--check is --call=check: give one of them")
        name = "check"
    form = ""
    for option in options:
        key, _, form = option.partition("=")
        if key != "format" or form not in {"json", "text"}:
            raise InvalidArgumentError(f"invalid call: {option}", "there is format=json")
    if name not in {"build", "check", "outline", "targets"}:
        raise InvalidArgumentError(
            f"unsupported call: {name}", "there is build, check, outline and targets"
        )
    return "" if name == "build" else name, form


def _answer(
    settings: "Settings",
    request: "Request",
    display: build_progress.Display,
    question: str,
    form: str,
) -> int:
    """Answer a question about the Dockerfile, as buildx does."""
    from ketch.build import answering  # noqa: PLC0415 - as above
    from ketch.engine.engine import Engine  # noqa: PLC0415

    with _shown(display):
        answer = answering.answer(Engine(settings), request, question, display.take)
    if form == "json":
        print(json.dumps(answer.document, indent=2))
        return answer.status
    if question == answering.CHECK:
        if count := len(answer.findings):
            some = "1 warning has" if count == 1 else f"{count} warnings have"
            print(f"Check complete, {some} been found!")
        elif answer.error is None:
            print("Check complete, no warnings found.")
    sys.stdout.write(spelt_out(answer.text))
    if answer.error is not None:
        sys.stdout.flush()
        sys.stderr.write(report(answer.error))
    return answer.status


def _write_results(parsed: Parsed, result: "Result") -> None:
    """Write the files that were asked for: whole, or not at all."""
    if name := parsed.text("iidfile"):
        with appearing.output(name, "write the image ID", _RESULT_MODE) as descriptor:
            appearing.write(descriptor, result.identifier.encode())
    if name := parsed.text("metadata-file"):
        document: dict[str, Any] = dict(result.metadata)
        text = json.dumps(document, indent=2, sort_keys=True)
        with appearing.output(name, "write metadata", _RESULT_MODE) as descriptor:
            appearing.write(descriptor, text.encode())
