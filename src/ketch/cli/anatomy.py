"""``ketch ns``: what containers are made of in the kernel, and how to look for oneself."""

import json
import sys

from ketch.cli import each
from ketch.cli.flags import Command, Flag, parse
from ketch.engine.engine import Engine
from ketch.engine.views import anatomy
from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec.sizes import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.flags import Parsed
    from ketch.engine.settings import Settings

    Document = dict[str, Any]

NS = Command(
    "ketch ns [OPTIONS] [CONTAINER...]",
    "Show the namespaces, control groups, mounts and links that containers are made of",
    (
        Flag("format", help="How to print it: 'text' or 'json'", default="text"),
        Flag("svg", "", "bool", "Draw it instead: one container, as SVG"),
    ),
)
_INDENT = "  "
_WIDTH = 11
WRITES = "what the container writes"
_CGROUPS = "/sys/fs/cgroup/"


def ns(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch ns``: of the containers that are named, or of all that run."""
    parsed = parse(NS, arguments)
    form = parsed.text("format")
    if form not in {"text", "json"}:
        raise InvalidArgumentError(f"invalid --format: {form}", "text and json are known")
    if parsed.enabled("svg"):
        return _draw(settings, parsed)
    engine = Engine(settings)
    found, failed = [], False
    wanted = parsed.arguments or [one.id for one in engine.containers.list() if one.init_pid]
    for name in wanted:
        try:
            found.append(anatomy.document(engine, engine.containers.find(name)))
        except KetchError as error:
            if parsed.arguments:  # else it has ended meanwhile
                failed = True
                each.say(error)
    if form == "json":
        print(json.dumps(found, indent=4))
    else:
        print("\n\n".join(map(text, found)), end="\n" if found else "")
    return 1 if failed else 0


def _draw(settings: "Settings", parsed: "Parsed") -> int:
    """Write the drawing of one container.

    Raises:
        InvalidArgumentError: another number of containers is named, or --format as well.
    """
    if len(parsed.arguments) != 1 or "format" in parsed.given:
        raise InvalidArgumentError(
            "--svg draws one container, and has no other format",
            "ketch ns --svg CONTAINER > container.svg",
        )
    from ketch.cli import drawing  # noqa: PLC0415 - seldom wanted

    engine = Engine(settings)
    found = anatomy.document(engine, engine.containers.find(parsed.arguments[0]))
    sys.stdout.write(drawing.svg(found).encode("utf-8", "replace").decode())
    return 0


def text(found: "Document") -> str:
    """Return what a person reads of a container's document."""
    sections = {
        "processes": _processes(found),
        "namespaces": _namespaces(found),
        "ids": _ids(found),
        "cgroup": _cgroup(found["cgroup"]),
        "root": _root(found["root"]),
        "mounts": [_mount(one) for one in found["mounts"] if one["type"] != "cgroup"],
        "network": [line for one in found["links"] for line in _link(one)] or [no_links(found)],
        "ports": [line for one in found["ports"] for line in _port(one)],
        "privileges": _privileges(found),
        "look inside": [found["enter"]],
    }
    lines = [f"{found['name']} ({found['id'][:12]})"]
    for title, section in sections.items():
        if section:
            lines += ["", f"{_INDENT}{title}", *(f"{_INDENT * 2}{line}" for line in section)]
    return "\n".join(lines)


def _processes(found: "Document") -> list[str]:
    inside = found["pids"][-1]
    lines = [f"process {found['pid']} of the host is {inside} inside (/proc/{found['pid']})"]
    if found["status"] == "paused":
        lines.append("paused: none of its processes goes on until ketch unpause")
    return lines


def _namespaces(found: "Document") -> list[str]:
    lines = []
    for one in found["namespaces"]:
        whose = one["whose"]
        if one["with"]:
            whose = f"shared with {', '.join(one['with'])}"
        lines.append(f"{one['kind']:<{_WIDTH}}{one['inode']}  {whose} ({one['about']})")
    return lines


def _ids(found: "Document") -> list[str]:
    if found["uid_map"] == found["gid_map"]:
        return [f"user and group {_range(row)}" for row in found["uid_map"]]
    maps = (("user", found["uid_map"]), ("group", found["gid_map"]))
    return [f"{name} {_range(row)}" for name, rows in maps for row in rows]


def _range(row: list[int]) -> str:
    inside, outside, count = row
    if inside == outside:
        return f"ids from {inside} on are the host's ({count} of them)"
    return (
        f"ids {inside} to {inside + count - 1} are {outside} to {outside + count - 1} of the host"
    )


def _cgroup(cgroup: "Document") -> list[str]:
    lines = _cgroup_paths(cgroup["paths"])
    if memory := cgroup.get("memory"):
        limit = binary_size(memory["limit"]) if memory["limit"] else "no limit"
        lines.append(f"memory used {binary_size(memory['usage'])} of {limit}")
    if pids := cgroup.get("pids"):
        lines.append(f"tasks {pids['usage']} of {pids['limit'] or 'no limit'}")
    if cpu := cgroup.get("cpu"):
        spent, held = cpu["usage_ns"] / 1e9, cpu["throttled_ns"] / 1e9
        lines.append(f"processor time {spent:.3f} s, held back for {held:.3f} s")
    return lines


def _cgroup_paths(paths: dict[str, str]) -> list[str]:
    """Those of v1's many hierarchies that differ in the hierarchy alone are written once."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for path in sorted(paths.values()):
        above, _, rest = path.removeprefix(_CGROUPS).partition("/")
        known = path.startswith(_CGROUPS) and rest
        alike.setdefault((_CGROUPS, rest) if known else (path,), []).append(above)
    lines = []
    for key, names in alike.items():
        if len(key) == 1 or len(names) == 1:
            lines.append(key[0] if len(key) == 1 else f"{_CGROUPS}{names[0]}/{key[1]}")
        else:
            lines.append(f"{_CGROUPS}{{{','.join(names)}}}/{key[1]}")
    return lines


def _root(root: "Document") -> list[str]:
    if "lower" not in root:
        return [f"{root['type']} {root['source']} {root['within']}"]
    lines = [f"overlay of {len(root['lower'])} layers that are only read, the topmost first:"]
    lines += [f"{'lower':<{_WIDTH}}{path}" for path in root["lower"]]
    if root["upper"]:
        about = "nothing is written: / is read-only" if is_read_only(root) else WRITES
        lines.append(f"{'upper':<{_WIDTH}}{root['upper']} ({about})")
        lines.append(f"{'work':<{_WIDTH}}{root['work']} (overlayfs's own)")
    return lines


def is_read_only(mount: "Document") -> bool:
    """Whether nothing can be written by way of a mount, whatever it is of."""
    return "ro" in mount["options"]


def no_links(found: "Document") -> str:
    """Say whose links a container without any of its own has."""
    (network,) = (one for one in found["namespaces"] if one["kind"] == "net")
    if network["with"]:
        return f"the links and ports of {', '.join(network['with'])}: one namespace"
    if network["whose"] == "the host's":
        return "the host's links, addresses and ports, with nothing between"
    return "loopback alone: nothing leads in or out"


def _mount(mount: "Document") -> str:
    is_null = mount["type"] == "devtmpfs" and mount["within"] == "/null"
    if is_null and mount["destination"] != "/dev/null":
        return f"{mount['destination']}: hidden behind /dev/null"
    way = "ro" if is_read_only(mount) else "rw"
    within = f" {mount['within']}" if mount["within"] not in {"/", ""} else ""
    return f"{mount['destination']} ({way}): {mount['type']}{within}"


def _link(link: "Document") -> list[str]:
    addresses = ", ".join(link["addresses"])
    lines = [f"{link['interface']} ({link['mac']}) {addresses} on network {link['network']}"]
    if link["peer"]:
        lines.append(f"{_INDENT}its other end is {link['peer']}, a port of bridge {link['bridge']}")
    elif link["bridge"]:
        lines.append(f"{_INDENT}a {link['driver']} link on {link['bridge']}")
    return lines


def _port(port: "Document") -> list[str]:
    head = f"{port['host'] or 'routed'} -> {port['container']}/{port['protocol']}"
    return [head, *(f"{_INDENT}{number}. {step}" for number, step in enumerate(port["way"], 1))]


def _privileges(found: "Document") -> list[str]:
    names = [name.removeprefix("CAP_").lower() for name in found["capabilities"]["effective"]]
    lines = [f"capabilities: {', '.join(names) or 'none'}"]
    if not found["no_new_privileges"]:
        lines.append("programs with a setuid bit or file capabilities may gain these again")
    seccomp = found["seccomp"]
    if seccomp["mode"] != "filter":
        lines.append("no system call filter")
    elif "default" not in seccomp:
        lines.append("a system call filter")
    elif seccomp["default"] == "refuse":
        lines.append(f"{seccomp['allowed']} system calls are let through, all others refused, as")
        lines.append(f"{_INDENT}{', '.join(seccomp['refused'])}")
    else:
        lines.append(f"all system calls but {', '.join(seccomp['refused']) or 'none'}")
    return lines
