"""``ketch lab``: the container in which docs/course is tried out, made where there is none yet."""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys

from ketch.cli import execute
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.session import Failure
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError, UnavailableError
from ketch.library.engine import Engine
from ketch.linux import programs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings
    from ketch.library.container import Container

LAB = Command(
    "ketch lab [OPTIONS] [COMMAND] [ARG...]",
    "Enter the lab, a container in which to try out how containers work\n\n"
    "It is a Debian with the tools that the course needs, and with this ketch in it; nothing that "
    "is done there touches the machine. The first time mmdebstrap makes it, which takes a minute "
    "or two; after that the same one is entered, until --rm. Without a command it is a shell.",
    (
        Flag("fresh", "", "bool", "Begin with a new one, as it was in the beginning"),
        Flag("mirror", help="Where Debian's packages come from when the lab is made",
             metavar="URL"),
        Flag("rm", "", "bool", "Take the lab away, with all that was done in it, and its image"),
    ),
    interspersed=False,
)  # fmt: skip

NAME = "ketch-lab"
SUITE = "bookworm"
PACKAGES = (
    "attr", "busybox-static", "ca-certificates", "curl", "docker-registry", "gcc", "iproute2",
    "iputils-ping", "jq", "less", "libc6-dev", "libcap2-bin", "libseccomp2", "nano", "netbase",
    "nftables", "procps", "psmisc", "python3", "python3-zstandard", "strace", "tcpdump", "uidmap",
)  # fmt: skip
_LABEL = "org.ketch.lab"
# What runs on any Python, from where this one has it, since Debian's may be too old.
_LIBRARIES = ("google.protobuf", "h11", "h2", "hpack", "hyperframe", "urllib3", "wsproto")
_PLACE = "/opt/ketch"
_COURSE = "/course"
# Layers are stacked on a file system of the machine's: overlayfs does not lie upon itself.
_OWN_DISK = ("/lab", "/var/lib/ketch")
_FILES = {
    "/usr/lib/python3/dist-packages/ketch.pth": f"{_PLACE}\n",
    "/usr/local/bin/ketch": "#!/usr/bin/python3\nfrom ketch.cli.main import leave, main\n"
    "leave(main())\n",
    "/root/.bashrc": "PS1='\\h# '\n",
}


def lab(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch lab``."""
    parsed = parse(LAB, arguments)
    if settings.home:
        raise UnavailableError(
            "the lab is a container with all that root may do, so it is root's", "sudo ketch lab"
        )
    engine = Engine(settings.root, settings.state, zygote=settings.zygote)
    ending = parsed.enabled("rm")
    if ending and parsed.arguments:
        raise InvalidArgumentError("--rm takes the lab away: nothing can be run in it then")
    if ending or parsed.enabled("fresh"):
        _remove(engine)
    if ending:
        _remove_images(engine)
        return 0
    name = _running(engine, parsed.text("mirror"))
    terminal = os.isatty(0) and os.isatty(1)
    flags = ["--interactive", *(["--tty"] if terminal else []), "--workdir", "/lab"]
    try:
        return execute.exec_(settings, [*flags, name, *(parsed.arguments or ["bash"])])
    except Failure as failure:
        failure.exit_status = failure.exit_status or 125
        raise


def image() -> str:
    """Returns the image's name, another one whenever what it is made of is another."""
    made_of = repr((SUITE, PACKAGES, sorted(_FILES.items()), _OWN_DISK))
    return f"{NAME}:{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"


def recipe(mirror: str) -> list[str]:
    """Returns the command that writes the image's root file system to its standard output.

    Args:
        mirror: where Debian's packages are; empty for where this machine's apt has them from, or
            for Debian's own.
    """
    mirror = mirror or _mirror()
    hooks = [f"mkdir -p {' '.join(f'$1{place}' for place in (*_OWN_DISK, _COURSE, _PLACE))}"]
    for path, text in _FILES.items():
        hooks.append(f'printf %s {shlex.quote(text)} >"$1{path}"')
    hooks.append('chmod 755 "$1/usr/local/bin/ketch"')
    return [
        "mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={line}" for line in _how_to_fetch()),
        *(f"--customize-hook={hook}" for hook in hooks),
        SUITE, "-", *([f"deb {mirror} {SUITE} main"] if mirror else []),
    ]  # fmt: skip


def _running(engine: Engine, mirror: str) -> str:
    """Have the lab run, and be there in the first place; returns its container's ID."""
    container = _found(engine)
    if container is None:
        if not engine.images.exists(image()):
            _make_image(engine, mirror)
        container = engine.containers.create(
            image(), ["sleep", "infinity"], name=NAME, hostname="lab", init=True, privileged=True,
            cgroupns="private", tmpfs={"/run": ""}, volume=[*_OWN_DISK, *_shown()],
            env={"LC_ALL": "C.UTF-8"},
            label={_LABEL: _package("ketch")}, stop_signal="KILL",
        )  # fmt: skip
    if container.status == "paused":
        container.unpause()
    elif container.status != "running":
        try:
            container.start()
        except KetchError as error:
            raise type(error)(
                error.message, f"{error.hint}\n\nketch lab --fresh makes a new one".strip()
            ) from error
    return container.id


def _found(engine: Engine) -> "Container | None":
    try:
        container = engine.containers.get(NAME)
    except NotFoundError:
        return None
    if _LABEL not in container.labels:
        raise InvalidArgumentError(
            f"there is a container {NAME} that is no lab", f"ketch rename {NAME} NEW_NAME"
        )
    return container


def _remove(engine: Engine) -> None:
    container = _found(engine)
    if container is not None:
        container.remove(force=True, volumes=True)


def _remove_images(engine: Engine) -> None:
    for one in engine.images.list(NAME):
        one.remove(force=True)


def _make_image(engine: Engine, mirror: str) -> None:
    """Have mmdebstrap make it, and take its archive while it is written.

    Raises:
        UnavailableError: there is no mmdebstrap, or it has failed.
    """
    if shutil.which("mmdebstrap") is None:
        raise UnavailableError(
            "the lab is made by mmdebstrap, which is not installed here",
            "Debian, Ubuntu, Fedora and Arch have it as the package mmdebstrap",
        )
    words = recipe(mirror)
    sys.stderr.write("making the lab's image, which is done once\n")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        try:
            made = engine.images.import_(maker.stdout, message="ketch lab")
        except KetchError as error:
            maker.stdout.close()
            if maker.wait():
                raise _failed(words) from error
            raise
        if maker.wait():
            made.remove(force=True)
            raise _failed(words)
    made.tag(image())


def _failed(words: list[str]) -> UnavailableError:
    place = words[-1].split(" ")[1] if words[-1] != "-" else "Debian's own mirrors"
    return UnavailableError(
        f"mmdebstrap could not make a Debian {SUITE} of packages from {place}; it has said why",
        "ketch lab --mirror URL has them from elsewhere",
    )


def _mirror() -> str:
    """Ask apt where it takes this Debian from; empty where there is no apt, or it has no source."""
    if shutil.which("apt-get") is None:
        return ""
    listing = programs.ask(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
         "Origin: Debian", f"Codename: {SUITE}"],
    )  # fmt: skip
    return next(iter(listing.stdout.split()), "")


def _how_to_fetch() -> list[str]:
    """Returns what this machine's apt is told of fetching: proxies, and whether clocks count."""
    if shutil.which("apt-config") is None:
        return []
    dump = programs.ask(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"])
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-")
    return [line for line in dump.stdout.splitlines()
            if line.startswith(wanted) and not line.endswith('"";')]  # fmt: skip


def _shown() -> list[str]:
    """Returns what the lab sees of this machine, to read only: ketch, and the course."""
    shown = [
        f"{_package(name)}:{_PLACE}/{name.replace('.', '/')}:ro" for name in ("ketch", *_LIBRARIES)
    ]
    pages = course()
    return [*shown, *([f"{pages}:{_COURSE}:ro"] if pages else [])]


def _package(name: str) -> str:
    found = importlib.util.find_spec(name)
    assert found is not None  # ketch needs it
    assert found.origin is not None
    return os.path.dirname(os.path.realpath(found.origin))


def course() -> str:
    """Where the course lies: in a checkout, or where pip has put it; empty where it is not."""
    package = _package("ketch")
    for place in ("../../docs/course", "../../../../share/ketch/course"):
        if os.path.isdir(found := os.path.realpath(f"{package}/{place}")):
            return found
    return ""
