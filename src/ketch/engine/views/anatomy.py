"""What a running container is made of in the kernel: what ``ketch ns`` shows.

Nothing here is remembered: all is read from /proc, the control groups and the database when
somebody asks, as a person would with readlink(1), cat(1) and findmnt(1).

Sources: namespaces(7), user_namespaces(7), proc_pid_status(5), proc_pid_mountinfo(5), veth(4).
"""

import json
import os

from ketch.engine.configuration import cgroup_paths
from ketch.engine.networks.publishing import bracketed
from ketch.errors import ConflictError, KetchError
from ketch.linux import procfs
from ketch.network.sandbox import Endpoint
from ketch.spec import capabilities
from ketch.spec.seccomp_summary import summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.networks.members import Member
    from ketch.engine.records.rows import Container
    from ketch.network.ports import Port

    Document = dict[str, Any]

# By the names of /proc/PID/ns, with what each keeps apart and nsenter(1)'s option.
NAMESPACES = {
    "user": ("user and group ids, and what capabilities count for", "--user"),
    "mnt": ("mounts: the file tree", "--mount"),
    "pid": ("process ids", "--pid"),
    "net": ("links, addresses, routes, ports, packet filter", "--net"),
    "ipc": ("System V IPC and POSIX message queues", "--ipc"),
    "uts": ("host and domain name", "--uts"),
    "cgroup": ("which control group is shown as the root", "--cgroup"),
    "time": ("the clocks since boot", "--time"),
}
_FILTERS = {"0": "none", "1": "strict", "2": "filter"}


def document(engine: "Engine", container: "Container") -> "Document":
    """Tell what a container is made of.

    Args:
        engine: where it is.
        container: the container.

    Raises:
        ConflictError: it does not run.
    """
    pid = container.init_pid
    if not container.is_active or not pid:
        raise ConflictError(
            f"container {container.name} is not running",
            "namespaces and cgroups are there as long as it runs: ketch start it",
        )
    try:
        found = _document(engine, container, pid)
    except FileNotFoundError as error:
        raise ConflictError(f"container {container.name} has ended") from error
    if not procfs.is_running(pid, container.init_start_time):
        raise ConflictError(f"container {container.name} has ended")
    return found


def _document(engine: "Engine", container: "Container", pid: int) -> "Document":
    status = _status(pid)
    kinds = _namespaces(engine, container)
    own = [NAMESPACES[one["kind"]][1] for one in kinds if one["whose"] != "the host's"]
    root, mounts = _mounts(pid)
    ports = engine.endpoints.ports([container.id]).get(container.id, [])
    # Members of networks host and none have no link.
    links = [_link(engine, one) for one in engine.endpoints.of(container.id) if one.interface]
    return {
        "id": container.id,
        "name": container.name,
        "status": container.status,
        "pid": pid,
        "pids": [int(word) for word in status["NSpid"].split()],
        "namespaces": kinds,
        "uid_map": _id_map(pid, "uid_map"),
        "gid_map": _id_map(pid, "gid_map"),
        "cgroup": _cgroup(engine, container, pid),
        "root": root,
        "mounts": mounts,
        "links": links,
        "ports": [_port(port, links) for port in ports],
        "capabilities": {
            "effective": capabilities.to_names(int(status["CapEff"], 16)),
            "bounding": capabilities.to_names(int(status["CapBnd"], 16)),
        },
        "no_new_privileges": status["NoNewPrivs"] == "1",
        "seccomp": _filter(engine, container, status),
        "enter": f"nsenter --target {pid} {' '.join(own)}".rstrip(),
    }


def _namespaces(engine: "Engine", container: "Container") -> "list[Document]":
    others = [one for one in engine.containers.list() if one.init_pid and one.id != container.id]
    found = []
    for kind, (about, _) in NAMESPACES.items():
        path = f"/proc/{container.init_pid}/ns/{kind}"
        place = os.readlink(path)
        company = [one.name for one in others if _place(one.init_pid, kind) == place]
        whose = "its own"
        if place == os.readlink(f"/proc/self/ns/{kind}"):
            whose, company = "the host's", []
        elif company:
            whose = "shared"
        found.append({
            "kind": kind, "about": about, "inode": int(place.partition("[")[2].rstrip("]")),
            "whose": whose, "with": company, "path": path,
        })  # fmt: skip
    return found


def _place(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {name: text.strip() for name, _, text in (line.partition(":") for line in file)}


def _id_map(pid: int, name: str) -> list[list[int]]:
    """Returns rows of (first id inside, first outside, how many)."""
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        return [[int(word) for word in line.split()] for line in file]


def _cgroup(engine: "Engine", container: "Container", pid: int) -> "Document":
    paths: dict[str, str] = {}
    manager = cgroup_paths.manager(engine.settings, container)
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            number, names, path = line.rstrip("\n").split(":", 2)
            for hierarchy in manager.layout.shown.hierarchies:
                is_unified = number == "0" and hierarchy.version == 2
                if is_unified or (names and ",".join(hierarchy.controllers) == names):
                    paths[names or "unified"] = hierarchy.directory(path)
    try:
        statistics = manager.statistics()
    except (OSError, ValueError, KetchError):
        return {"paths": paths}
    found: Document = {"paths": paths}
    if memory := statistics.get("memory"):
        found["memory"] = {"usage": memory["usage_bytes"], "limit": memory["limit_bytes"]}
    if pids := statistics.get("pids"):
        found["pids"] = {"usage": pids["current"], "limit": pids["limit"]}
    if cpu := statistics.get("cpu"):
        found["cpu"] = {"usage_ns": cpu["usage_ns"], "throttled_ns": cpu["throttled_ns"]}
    return found


def _mounts(pid: int) -> "tuple[Document, list[Document]]":
    """Returns the root with its layers, and the other mounts in the order they were made."""
    root: Document = {}
    others = []
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            _, _, _, within, point, options, *_ = before.split(" ")
            kind, source, of_superblock = after.split(" ", 2)
            mount: Document = {
                "destination": procfs.unescape(point), "type": kind,
                "source": procfs.unescape(source), "within": procfs.unescape(within),
                "options": options.split(","),
            }  # fmt: skip
            if mount["destination"] == "/":
                root = {**mount, **_layers(of_superblock)}
            else:
                others.append(mount)
    return root, others


def _layers(options: str) -> "Document":
    """What an overlay is made of: overlayfs has a layer an option, or all in one with colons."""
    found: Document = {"lower": [], "upper": "", "work": ""}
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name in {"lowerdir", "lowerdir+"}:
            found["lower"] += procfs.unescape(value).split(":")
        elif name in {"upperdir", "workdir"}:
            found[name.removesuffix("dir")] = procfs.unescape(value)
    return found if found["lower"] else {}


def _link(engine: "Engine", member: "Member") -> "Document":
    network = engine.networks.find(member.network_id)
    link = network.link()
    endpoint = Endpoint(member.id, network.name, link, member.addresses, member.mac)
    return {
        "interface": member.interface,
        "network": network.name,
        "driver": network.driver,
        "peer": endpoint.port if network.driver == "bridge" else "",
        "bridge": network.bridge,
        "addresses": [str(one) for one in member.addresses],
        "mac": member.mac,
        "gateway": sorted(member.gateway),
    }


def _port(port: "Port", links: "list[Document]") -> "Document":
    near = [
        f"{link['bridge']} to {link['peer']}"
        for link in links
        if any(one.partition("/")[0] == str(port.address) for one in link["addresses"])
    ]
    inside = f"{bracketed(port.address)}:{port.port}"
    element = port.element()
    if port.is_private:
        way = ["the program that leads out for this container alone passes on what comes there"]
    elif port.routed:
        way = [f"set inet ketch {element.name} lets packets to {inside} through as they come"]
    else:
        way = [
            f"prerouting (output for the host's own): map inet ketch {element.name} has "
            f"{{ {element.words} : {element.leads} }}, so the destination becomes {inside}",
            "forward: it passes, since its destination was translated",
        ]
    way += [f"over bridge {place}" for place in near]
    if not port.routed and not port.is_private:
        way.append("answers: connection tracking gives them back the address that was asked")
    return {
        "protocol": port.protocol,
        "host": "" if port.routed else f"{bracketed(port.host_address)}:{port.host_port}",
        "container": inside,
        "way": way,
    }


def _filter(engine: "Engine", container: "Container", status: dict[str, str]) -> "Document":
    mode = _FILTERS.get(status.get("Seccomp", ""), "none")
    if mode != "filter":
        return {"mode": mode}
    path = f"{engine.settings.container_directory(container.id)}/config.json"
    try:
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)["linux"]["seccomp"]
    except (OSError, ValueError, KeyError):
        return {"mode": mode}
    return {"mode": mode, **summary(profile)}
