"""``ketch build``: an image from a Dockerfile."""

import contextlib
import json
import os
import sys

from ketch.build import asking
from ketch.cli import build_progress, client_configuration
from ketch.cli.flags import Command, Parsed, parse
from ketch.engine.files import appearing
from ketch.errors import InvalidArgumentError, spelt_out
from ketch.spec.build_flags import FLAGS

_RESULT_MODE = 0o644

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.build.request import Request, Result
    from ketch.engine.settings import Settings

BUILD = Command(
    "ketch build [OPTIONS] PATH | URL | -",
    "Start a build",
    FLAGS,
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
        caller = asking.Caller(
            os.environ, sys.stdin.buffer if sys.stdin is not None else None,
            client_configuration.proxies(parsed.items("build-arg")),
        )  # fmt: skip
        request = asking.request(parsed, parsed.arguments[0], caller, held)
        mode = "quiet" if quiet else parsed.text("progress")
        display = build_progress.display(mode, sys.stderr)
        result = _run(settings, request, display, explain=parsed.enabled("explain"))
    if mode not in {"quiet", "rawjson"}:
        sys.stderr.write(build_progress.summary(display.trace.warnings))
        sys.stderr.write(spelt_out(result.warning))
    _write_results(parsed, result)
    if quiet and result.image_id:
        print(result.image_id)
    return 0


def _run(
    settings: "Settings", request: "Request", display: build_progress.Display, *, explain: bool
) -> "Result":
    """Build, and show it."""
    from ketch.build import builder  # noqa: PLC0415 - after what the command line has wrong
    from ketch.engine.engine import Engine  # noqa: PLC0415

    say = (lambda line: sys.stderr.write(f"{line}\n")) if explain else None
    try:
        with display.going_on():
            return builder.build(Engine(settings), request, display.take, explain=say)
    except Exception as error:
        if excerpt := getattr(error, "excerpt", ""):
            sys.stderr.write(excerpt)
        error.exit_status = 1  # type: ignore[attr-defined] # whatever a step's program ended with
        raise


def _write_results(parsed: Parsed, result: "Result") -> None:
    """Write the files that were asked for: whole, or not at all."""
    if name := parsed.text("iidfile"):
        identifier = result.image_id or str(
            result.metadata.get("containerimage.config.digest", result.digest)
        )
        with appearing.output(name, "write the image ID", _RESULT_MODE) as descriptor:
            appearing.write(descriptor, identifier.encode())
    if name := parsed.text("metadata-file"):
        document: dict[str, Any] = dict(result.metadata)
        text = json.dumps(document, indent=2, sort_keys=True)
        with appearing.output(name, "write metadata", _RESULT_MODE) as descriptor:
            appearing.write(descriptor, text.encode())
