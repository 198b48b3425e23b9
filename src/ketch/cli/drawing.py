"""A container drawn as SVG: its processes, namespaces, layers and mounts, links, bridges and ports.

What is the container's own is drawn strong, what it shares with the host faint. On the left is what
its processes see, on the right what the host has of it, and a packet's way leads from there to it.
"""

from xml.sax.saxutils import escape

from ketch.cli import anatomy
from ketch.errors import on_one_line
from ketch.spec.sizes import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Document = dict[str, Any]
    Point = tuple[float, float]

_GAP, _PADDING, _LINE = 16, 10, 17
_LEFT, _RIGHT, _BETWEEN = 520, 330, 90  # widths
_LETTER, _LARGE_LETTER = 6.9, 7.6  # pixels of a letter, on average
_MOUNTS_MAX, _LAYERS_MAX, _PORTS_MAX = 12, 10, 12
_STYLE = """\
text{font-family:ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-size:12px;fill:#51606e}
.head{font-size:14px;fill:#1b2733}.title{font-size:15px;font-weight:600;fill:#1b2733}
.page{fill:#ffffff}.box{fill:#eef3f8;stroke:#7b93aa}
.strong{fill:#d7eadf;stroke:#3f8f63;stroke-width:1.6}
.faint{fill:none;stroke:#9aa8b5;stroke-dasharray:4 4}.frame{fill:none;stroke:#b9c5d0}
.wire{fill:none;stroke:#3d5266;stroke-width:1.4}.tip{fill:#3d5266}
@media(prefers-color-scheme:dark){text{fill:#a9b7c4}.head,.title{fill:#e4ebf2}.page{fill:#12181f}
.box{fill:#1f2b37;stroke:#5d7489}.strong{fill:#173a29;stroke:#58b483}.frame{stroke:#405263}
.faint{stroke:#6f7f8e}.wire{stroke:#a8bccd}.tip{fill:#a8bccd}}"""


class _Box:
    """A rectangle that was drawn, in pixels."""

    def __init__(self, x: float, y: float, width: float, height: float) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height

    @property
    def bottom(self) -> float:
        """Where what comes below it may begin."""
        return self.y + self.height + _GAP

    @property
    def left(self) -> "Point":
        """The middle of its left side."""
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> "Point":
        """The middle of its right side."""
        return self.x + self.width, self.y + self.height / 2


class _Page:
    """What has been drawn so far."""

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self._words: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        head: str,
        lines: "Sequence[str]" = (),
        *,
        kind: str = "box",
    ) -> _Box:
        """Draw a thing: its name, and smaller what there is to say of it."""
        at = _Box(x, y, width, 2 * _PADDING + _LINE * (1 + len(lines)) - 4)
        self.rectangle(at, kind)
        self.text(x + _PADDING, y + _PADDING + 11, head, "head", width)
        for number, line in enumerate(lines, 1):
            self.text(x + _PADDING, y + _PADDING + 11 + number * _LINE, line, "", width)
        return at

    def rectangle(self, at: _Box, kind: str) -> None:
        """Draw a rectangle, behind all words."""
        self._shapes.append(
            f'<rect class="{kind}" x="{at.x:g}" y="{at.y:g}" width="{at.width:g}"'
            f' height="{at.height:g}" rx="5"/>'
        )

    def text(self, x: float, y: float, words: str, kind: str, width: float) -> None:
        """Write a line, cut where it would not fit."""
        letters = int((width - 2 * _PADDING) / (_LARGE_LETTER if kind else _LETTER))
        shown = on_one_line(words)
        if len(shown) > letters:
            shown = f"{shown[: letters - 1]}…"
        name = f' class="{kind}"' if kind else ""
        self._words.append(f'<text{name} x="{x:g}" y="{y:g}">{escape(shown)}</text>')

    def arrow(self, start: "Point", end: "Point") -> None:
        """Draw a way to the left, with its corners in the middle."""
        (x, y), (to_x, to_y) = start, end
        self._shapes += [
            f'<path class="wire" d="M{x:g} {y:g}H{(x + to_x) / 2:g}V{to_y:g}H{to_x:g}"/>',
            f'<path class="tip" d="M{to_x:g} {to_y:g}l8 -4v8z"/>',
        ]

    def line(self, start: "Point", end: "Point") -> None:
        """Draw a line down and across."""
        (x, y), (to_x, to_y) = start, end
        self._shapes.append(f'<path class="wire" d="M{x:g} {y:g}V{to_y:g}H{to_x:g}"/>')

    def svg(self, width: float, height: float, title: str) -> str:
        """Return the whole."""
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
            f' viewBox="0 0 {width:g} {height:g}" role="img">',
            f"<title>{escape(on_one_line(title))}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{width:g}" height="{height:g}"/>',
            *self._shapes, *self._words, "</svg>", "",
        ])  # fmt: skip


def svg(found: "Document") -> str:
    """Draw a container.

    Args:
        found: what it is made of, as ``anatomy.document`` tells it.
    """
    page = _Page()
    top = _GAP * 3
    bottom, links = _inside(page, found, 2.0 * _GAP, top + 2.0 * _GAP, _LEFT - 2 * _GAP)
    x = _GAP + _LEFT + _BETWEEN
    outside = _outside(page, found, x + _GAP, top + 2.0 * _GAP, _RIGHT - 2 * _GAP, links)
    height = max(bottom, outside) - top
    nothing = "" if found["links"] else ": no link, no port"
    for at, words in (
        (_Box(_GAP, top, _LEFT, height), "what its processes see"),
        (_Box(x, top, _RIGHT, height), f"what the host has of it{nothing}"),
    ):
        page.rectangle(at, "frame")
        page.text(at.x + _PADDING, at.y + 20, words, "", at.width)
    title = f"container {found['name']} ({found['id'][:12]})"
    page.text(_GAP, 28, title, "title", x + _RIGHT)
    return page.svg(x + _RIGHT + _GAP, top + height + _GAP, title)


def _inside(
    page: _Page, found: "Document", x: float, y: float, width: float
) -> "tuple[float, dict[str, _Box]]":
    """Draw what is inside; returns where it ends, and the links by name."""
    paused = " (paused)" if found["status"] == "paused" else ""
    about = [f"process {found['pid']} of the host{paused}", *_privileges(found)]
    y = page.box(x, y, width, f"process {found['pids'][-1]}", about, kind="strong").bottom
    half = (width - _GAP) / 2
    for number, one in enumerate(found["namespaces"]):
        column = x + (half + _GAP) * (number % 2)
        whose = f"shared with {', '.join(one['with'])}" if one["with"] else one["whose"]
        kind = {"its own": "strong", "shared": "box"}.get(one["whose"], "faint")
        about = [f"{one['inode']}: {whose}"]
        at = page.box(column, y, half, f"{one['kind']} namespace", about, kind=kind)
        if number % 2 or number == len(found["namespaces"]) - 1:
            y = at.bottom
    y = page.box(x, y, width, "control group", _cgroup(found["cgroup"])).bottom
    y = page.box(x, y, width, "ids", _ids(found)).bottom
    y = _layers(page, found["root"], x, y, width)
    y = _mounts(page, found["mounts"], x, y, width)
    links = {}
    for one in found["links"]:
        about = [f"{', '.join(one['addresses'])}  {one['mac']}", f"network {one['network']}"]
        links[one["interface"]] = at = page.box(x, y, width, one["interface"], about, kind="strong")
        y = at.bottom
    if not links:
        y = page.box(x, y, width, "no link of its own", [anatomy.no_links(found)]).bottom
    return y, links


def _outside(
    page: _Page, found: "Document", x: float, y: float, width: float, links: "dict[str, _Box]"
) -> float:
    """Draw the host's side; returns where it ends."""
    bridges: dict[str, _Box] = {}
    for one in found["links"]:
        if not one["bridge"]:
            continue
        inside = links[one["interface"]]
        known = bridges.get(one["bridge"])
        if known is None:
            about = [f"{'bridge' if one['peer'] else one['driver']} of network {one['network']}"]
            # Each link's other end is to stand beside it, if there is room.
            at_y = max(y, inside.y - inside.height - _GAP)
            known = bridges[one["bridge"]] = page.box(x, at_y, width, one["bridge"], about)
            y = known.bottom
        start = known
        if one["peer"]:
            about = [f"veth, a port of {one['bridge']}"]
            start = page.box(
                x + 2 * _GAP, max(y, inside.y), width - 2 * _GAP, one["peer"], about, kind="strong"
            )
            y = start.bottom
            page.line((x + _GAP, known.y + known.height), start.left)
        page.arrow(start.left, inside.right)
    for port in found["ports"][:_PORTS_MAX]:
        way = [f"to {port['container']}", *map(_element, port["way"][:1])]
        at = page.box(x, y, width, f"{port['host'] or 'routed'}/{port['protocol']}", way)
        y = at.bottom
        address = port["container"].rpartition(":")[0].strip("[]")
        for one in found["links"]:
            if any(text.partition("/")[0] == address for text in one["addresses"]):
                page.arrow(at.left, links[one["interface"]].right)
    if len(found["ports"]) > _PORTS_MAX:
        page.text(x, y + 12, f"and {len(found['ports']) - _PORTS_MAX} more ports", "", width)
        y += 2 * _LINE
    return y


def _element(step: str) -> str:
    """Where the packet filter has a port, in fewer words."""
    words = step.split()
    if "inet" not in words:
        return step
    first = words.index("inet")
    return f"{words[first - 1]} {' '.join(words[first : first + 3])}"


def _privileges(found: "Document") -> list[str]:
    names = [name.removeprefix("CAP_").lower() for name in found["capabilities"]["effective"]]
    seccomp = found["seccomp"]
    calls = "no system call filter"
    if seccomp["mode"] != "none":
        some = f": {seccomp['allowed']} pass" if "allowed" in seccomp else ""
        calls = f"system calls are filtered{some}"
    return [f"{len(names)} capabilities: {', '.join(names) or 'none'}", calls]


def _cgroup(cgroup: "Document") -> list[str]:
    lines = []
    paths = sorted(cgroup["paths"].values(), key=len)
    if paths:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        lines.append(f"{_tail(paths[0])}{more}")
    if memory := cgroup.get("memory"):
        limit = binary_size(memory["limit"]) if memory["limit"] else "no limit"
        lines.append(f"memory: {binary_size(memory['usage'])} of {limit}")
    if pids := cgroup.get("pids"):
        lines.append(f"tasks: {pids['usage']} of {pids['limit'] or 'no limit'}")
    return lines


def _ids(found: "Document") -> list[str]:
    lines = []
    for name, rows in (("user", found["uid_map"]), ("group", found["gid_map"])):
        for inside, outside, count in rows:
            if inside == outside:
                lines.append(f"{name} ids from {inside} on are the host's")
            else:
                last, outer = inside + count - 1, outside + count - 1
                lines.append(f"{name} ids {inside} to {last} are {outside} to {outer} of the host")
    return lines


def _layers(page: _Page, root: "Document", x: float, y: float, width: float) -> float:
    """Draw the root's layers as they lie on each other; returns where they end."""
    if "lower" not in root:
        return page.box(x, y, width, "/", [f"{root['type']} {root['source']}"]).bottom
    stack = [("/ lower: only read", [_tail(path)], "box") for path in root["lower"][:_LAYERS_MAX]]
    if root["upper"]:
        read_only = anatomy.is_read_only(root)
        head = f"/ upper: {'nothing, since / is read-only' if read_only else anatomy.WRITES}"
        stack.insert(0, (head, [_tail(root["upper"])], "box" if read_only else "strong"))
    if len(root["lower"]) > _LAYERS_MAX:
        stack.append((f"and {len(root['lower']) - _LAYERS_MAX} layers more", [], "box"))
    for head, lines, kind in stack:
        at = page.box(x, y, width, head, lines, kind=kind)
        y = at.bottom - _GAP + 2
    return y - 2 + _GAP


def _mounts(page: _Page, mounts: "Sequence[Document]", x: float, y: float, width: float) -> float:
    lines = [_mount(one) for one in mounts if one["type"] != "cgroup"]
    if len(lines) > _MOUNTS_MAX:
        lines[_MOUNTS_MAX:] = [f"and {len(lines) - _MOUNTS_MAX} more"]
    return page.box(x, y, width, "mounts", lines).bottom if lines else y


def _mount(mount: "Document") -> str:
    way = ", read-only" if anatomy.is_read_only(mount) else ""
    within = f"  {_tail(mount['within'])}" if mount["within"] not in {"/", ""} else ""
    return f"{mount['destination']}  {mount['type']}{way}{within}"


def _tail(path: str) -> str:
    """The end of a path, which tells it from others; long names in it are cut."""
    parts = [part if len(part) < 24 else f"{part[:12]}…" for part in path.split("/")]
    return "/".join(["…", *parts[-4:]] if len(parts) > 5 else parts)
