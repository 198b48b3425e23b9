"""``ketch compose``: docker's Compose, on a server of ketch's that ends with it.

Compose is a project of its own, and well kept; it speaks Docker's API. What it makes lives on
without the server, as all containers do.
"""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

from ketch.api import application, listeners, server
from ketch.cli.caller import explained
from ketch.cli.flags import Command, HelpRequested, parse
from ketch.engine.processes import await_readable
from ketch.errors import UnavailableError
from ketch.linux import process, programs
from ketch.linux.scopes import owned
from ketch.spec.flag import EXPLAIN
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from ketch.api.listeners import Listener
    from ketch.engine.settings import Settings
    from ketch.spec.told import Say

_COMPOSE = Command(
    "ketch compose [OPTIONS] COMMAND",
    "Run a Compose project, by docker's Compose",
    (EXPLAIN,),
    interspersed=False,
)
# Where docker's command line looks for it as well.
_PLUGINS = (
    "~/.docker/cli-plugins", "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)  # fmt: skip
_NAME = "docker-compose"
# What would lead it to another engine.
_LEADING = ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH")
_ENDING_MS = 10_000
_LENGTH_BYTES = 4


def compose(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch compose``: its exit status is Compose's."""
    if arguments in (["--help"], ["-h"]):
        raise HelpRequested(_COMPOSE)
    own = 1 if arguments and arguments[0].partition("=")[0] == f"--{EXPLAIN.name}" else 0
    parsed, words = parse(_COMPOSE, arguments[:own]), arguments[own:]
    program = _found()
    with explained(settings, parsed), _serving(settings) as address:
        environment = {name: value for name, value in os.environ.items() if name not in _LEADING}
        settings.tell(_describe, [*program, *words], address)
        return _run([*program, *words], {**environment, "DOCKER_HOST": address})


def _describe(words: list[str], address: str) -> Told:
    """Compose, run on a server of ketch's, to be told."""
    by_hand = [
        f"ketch serve -H {address} &",
        f"until test -S {quote(address.removeprefix('unix://'))}; do sleep 0.1; done",
        f"DOCKER_HOST={quote(address)} {' '.join(map(quote, words))}",
        "kill $!",
    ]
    values = [("program", words[0]), ("DOCKER_HOST", address)]
    told = "run Compose, which asks a server that ends with it · fork(2), execve(2)"
    return Told("program", told, values, outside=by_hand)


def _found() -> list[str]:
    """Returns the words that run Compose: its plugin, its own program, or docker's command.

    Raises:
        UnavailableError: there is none.
    """
    directory = os.environ.get("DOCKER_CONFIG")
    places = (f"{directory}/cli-plugins", *_PLUGINS) if directory else _PLUGINS
    for place in places:
        path = os.path.join(os.path.expanduser(place), _NAME)
        if os.access(path, os.X_OK):
            return [path]
    if path := shutil.which(_NAME) or "":
        return [path]
    docker = shutil.which("docker")
    if docker:
        asked = programs.ask([docker, "compose", "version"])
        if not asked.returncode:
            return [docker, "compose"]
    raise UnavailableError(
        "Compose is not installed here",
        "Debian and Ubuntu have it as docker-compose or docker-compose-v2, Fedora as "
        "docker-compose; or put its released program into ~/.docker/cli-plugins/docker-compose",
    )


@contextlib.contextmanager
def _serving(settings: "Settings") -> "Iterator[str]":
    """Serve Docker's API as long as the block lasts; yields its address."""
    os.makedirs(settings.state, mode=0o700, exist_ok=True)
    _remove_stale(settings.state)
    path = f"{settings.state}/compose-{os.getpid()}.sock"
    address = f"unix://{path}"
    listener = listeners.listen(address, listeners.Tls("", "", ""), "", lambda _text: None)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _serve(settings, listener, parent, theirs)
    theirs.close()
    hearing = threading.Thread(target=_hear, args=(settings, ours))
    hearing.start()
    try:
        listener.socket.close()
        yield address
    finally:
        _end(child)
        ours.shutdown(socket.SHUT_RD)  # what it has forked may have the other end as well
        hearing.join()
        ours.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _hear(settings: "Settings", connection: socket.socket) -> None:
    """Tell what the server tells of steps, until it ends."""
    with connection.makefile("rb") as steps:
        while head := steps.read(_LENGTH_BYTES):
            payload = steps.read(int.from_bytes(head, "big"))
            settings.tell(Told.decode, payload.decode("utf-8", "surrogateescape"))


def _say_to(connection: socket.socket) -> "Say":
    """Who tells the process that hears of steps at the other end."""
    turn = threading.Lock()

    def say(step: Told) -> None:
        payload = step.encode().encode("utf-8", "surrogateescape")
        with turn, contextlib.suppress(OSError):
            connection.sendall(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)

    return say


def _serve(
    settings: "Settings", listener: "Listener", parent: int, steps: socket.socket
) -> "NoReturn":
    """The server's process. A key at the terminal is Compose's, which still has things to ask."""
    if settings.say is not None:
        settings.say = _say_to(steps)
    try:
        process.set_name("ketch-serve")
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGTERM)
        os.setpgid(0, 0)
        null = os.open("/dev/null", os.O_RDWR)
        for stream in (0, 1):
            os.dup2(null, stream)
        if os.getppid() == parent:
            server.run(application.Application(settings, "error"), [listener])
    finally:
        os._exit(1)


def _end(child: int) -> None:
    os.kill(child, signal.SIGTERM)
    with owned(os.pidfd_open(child)) as ended:
        if not await_readable(ended, _ENDING_MS):
            os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _run(words: list[str], environment: dict[str, str]) -> int:
    """Run Compose in the foreground; returns its exit status, as a shell has it."""
    try:
        child = subprocess.Popen(words, env=environment)
    except OSError as error:
        raise UnavailableError(f"cannot run {words[0]}: {error.strerror}") from error
    # A terminal sends its keys to Compose as well, which knows what to do with them.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGQUIT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: child.send_signal(number))
    status = child.wait()
    return 128 - status if status < 0 else status


def _remove_stale(state: str) -> None:
    """Remove the sockets of those that were killed together with their server."""
    for path in glob.glob(f"{glob.escape(state)}/compose-*.sock"):
        number = path.rpartition("-")[2].removesuffix(".sock")
        if os.path.exists(f"/proc/{number}"):
            continue
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            if probe.connect_ex(path):
                os.unlink(path)
