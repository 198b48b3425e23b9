"""A sandbox without an image: the host's own programs, and one of its directories.

What is seen is listed here, and nothing else of the host is: no home directory, no key, no token,
no socket. Of ``/etc`` it is what programs look for to run.
"""

import contextlib
import grp
import hashlib
import io
import os
import pwd
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.linux import namespaces

if TYPE_CHECKING:
    from typing import Any

    from ketch.library.engine import Engine

_PROGRAMS = ("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = (
    "alternatives", "bash.bashrc", "bash_completion.d", "ca-certificates", "ca-certificates.conf",
    "crypto-policies", "debian_version", "environment.d", "fonts", "gai.conf", "host.conf",
    "inputrc", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "login.defs", "lsb-release",
    "magic", "mime.types", "nsswitch.conf", "os-release", "perl", "pki/ca-trust",
    "pki/tls/certs", "profile", "profile.d", "protocols", "python3", "python3.11", "python3.12",
    "python3.13", "python3.14", "redhat-release", "services", "shells", "ssl/certs",
    "ssl/openssl.cnf", "terminfo", "timezone", "vim", "xdg",
)  # fmt: skip
_REFUSED = ("/", "/home", "/root", "/proc", "/sys", "/dev", "/run", *_PROGRAMS, "/etc", "/var")
_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "LANGUAGE", "TZ", "TERM", "COLORTERM")
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROJECT_LABEL = "org.ketch.sandbox.project"


class View(NamedTuple):
    """What a sandbox is made of.

    Attributes:
        image: name of an image with nothing but links such as that of ``/bin``.
        options: of ``Sandbox.create``.
    """

    image: str
    options: "dict[str, Any]"


def view(engine: "Engine", project: "str | os.PathLike[str]", disk_bytes: int) -> View:
    """Returns what a sandbox is made of that has the host's programs and a project.

    Args:
        engine: where it will be.
        project: a directory, seen where it is on the host.
        disk_bytes: how much may be written to it.

    Raises:
        InvalidArgumentError: the project is none, or is what is not to be seen.
    """
    place = os.path.realpath(project)
    if not os.path.isdir(place):
        raise InvalidArgumentError(f"project={os.fspath(project)!r}: there is no such directory")
    home = os.path.realpath(os.environ.get("HOME") or "/root")
    above = place if place == "/" else f"{place}/"
    if place in _REFUSED or f"{home}/".startswith(above):
        raise InvalidArgumentError(
            f"project={place!r}: it holds more than a project",
            "give the directory of one project, beneath your home for instance",
        )
    if place.startswith(tuple(f"{one}/" for one in _PROGRAMS)) or any(c in place for c in ',"\n'):
        raise InvalidArgumentError(f"project={place!r}: it cannot be shown where it is")
    links, seen = _programs()
    seen += [f"/etc/{name}" for name in _SETTINGS if os.path.exists(f"/etc/{name}")]
    writable = [home, "/tmp", "/var/tmp"]
    status = os.stat(place)
    user = f"{status.st_uid}:{status.st_gid}"
    userns = "auto"
    if not namespaces.in_initial_user_namespace():  # the caller is who it is, and nobody else
        userns, user = "keep-id", ""
    options = {
        "user": user, "userns": userns, "workdir": place, "writable": writable,
        "mounts": {one: one for one in seen},
        "mount": [f'type=bind,"source={place}","target={place}",bind-copy-on-write={disk_bytes}'],
        "env": {
            "PATH": _path(seen), "HOME": home, "USER": os.environ.get("USER", ""),
            **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
        },
        "label": {PROJECT_LABEL: place},
    }  # fmt: skip
    accounts = {"passwd": _users(status.st_uid, home), "group": _groups(status.st_gid)}
    return View(_image(engine, links, accounts), options)


# Of the machine's users those that it needs. (Files that useradd replaces cannot be mounted: who
# comes in between finds them gone.)


def _users(uid: int, home: str) -> str:
    lines = [f"root:x:0:0:root:{'/root' if uid else home}:/bin/sh"]
    with contextlib.suppress(KeyError):
        if uid:
            found = pwd.getpwuid(uid)
            lines.append(f"{found.pw_name}:x:{uid}:{found.pw_gid}::{home}:/bin/sh")
    return "".join(f"{line}\n" for line in [*lines, "nobody:x:65534:65534::/:/bin/false"])


def _groups(gid: int) -> str:
    lines = ["root:x:0:", "nogroup:x:65534:"]
    with contextlib.suppress(KeyError):
        if gid:
            lines.append(f"{grp.getgrgid(gid).gr_name}:x:{gid}:")
    return "".join(f"{line}\n" for line in lines)


def _programs() -> tuple[dict[str, str], list[str]]:
    """Returns the links among the directories of programs, and those that are directories."""
    links = {one: os.readlink(one) for one in _PROGRAMS if os.path.islink(one)}
    return links, [one for one in _PROGRAMS if os.path.isdir(one) and one not in links]


def _path(seen: "list[str]") -> str:
    """The caller's search path, as far as it is seen."""
    beneath = tuple(f"{one}/" for one in (*seen, "/bin", "/sbin"))
    given = os.environ.get("PATH", "").split(":")
    return ":".join(dict.fromkeys([*(one for one in given if f"{one}/".startswith(beneath)),
                                   *PATHS.split(":")]))  # fmt: skip


def _image(engine: "Engine", links: dict[str, str], accounts: dict[str, str]) -> str:
    """Returns the name of an image of these links and files of /etc; it is made once."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, target in sorted(links.items()):
            member = tarfile.TarInfo(path.removeprefix("/"))
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
            archive.addfile(member)
        for path in ("etc", "var", "workspace"):
            member = tarfile.TarInfo(path)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, text in accounts.items():
            member = tarfile.TarInfo(f"etc/{name}")
            member.mode, member.size = 0o644, len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    data = packed.getvalue()
    name = f"localhost/ketch-sandbox-host:{hashlib.sha256(data).hexdigest()[:12]}"
    try:
        engine.images.get(name)
    except NotFoundError:
        engine.images.import_(data, name, message="the host's links, for sandboxes")
    return name
