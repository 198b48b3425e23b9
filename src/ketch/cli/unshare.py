"""``ketch unshare``: a command in the namespaces of an ordinary user's engine."""

import os

from ketch.cli.flags import Command, Flag, parse
from ketch.engine.home import entering
from ketch.errors import InvalidArgumentError, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

UNSHARE = Command(
    "ketch unshare [OPTIONS] [COMMAND] [ARG...]",
    "Run a command in the namespaces of an ordinary user's engine\n\n"
    "There the user is root, and files of containers belong to whom they belong to in containers. "
    "Without a command it is the user's shell.",
    (
        Flag("rootless-netns", "", "bool",
             "Enter the network of the user's containers as well, and so leave the machine's"),
    ),
    interspersed=False,
)  # fmt: skip


def unshare(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch unshare``."""
    parsed = parse(UNSHARE, arguments)
    words = parsed.arguments or [os.environ.get("SHELL") or "/bin/sh"]
    if not settings.home:
        raise InvalidArgumentError(
            "only an ordinary user has namespaces to go to",
            f"root is in the machine's own: {' '.join(words)}",
        )
    if parsed.enabled("rootless-netns"):
        entering.enter_network(settings)
    own = {"KETCH_ROOT": settings.root, "KETCH_STATE": settings.state}
    try:
        os.execvpe(words[0], words, {**os.environ, **own})
    except FileNotFoundError as error:
        raise StartError(f"{words[0]}: not found", exit_status=127) from error
    except OSError as error:
        raise StartError(f"{words[0]}: {(error.strerror or '').lower()}") from error
