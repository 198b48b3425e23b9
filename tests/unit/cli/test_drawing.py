"""``ketch ns --svg``: whatever a container is made of, all of its drawing is in its place."""

from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from ketch.cli import drawing

SVG = "{http://www.w3.org/2000/svg}"
TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.just("</text><script>\x1b[2J\0")


def found(**changed: Any) -> dict[str, Any]:
    link = {
        "interface": "eth0", "network": "bridge", "driver": "bridge", "peer": "veth1",
        "bridge": "docker0", "addresses": ["172.17.0.2/16"], "mac": "02:42:ac:11:00:02",
        "gateway": [4],
    }  # fmt: skip
    return {
        "id": "0" * 64, "name": "web", "status": "running", "pid": 700, "pids": [700, 1],
        "namespaces": [{"kind": "net", "inode": 7, "whose": "its own", "with": []},
                       {"kind": "user", "inode": 8, "whose": "the host's", "with": []},
                       {"kind": "ipc", "inode": 9, "whose": "shared", "with": ["other"]}],
        "uid_map": [[0, 100000, 65536]], "gid_map": [[0, 0, 4294967295]],
        "cgroup": {"paths": {"memory": "/sys/fs/cgroup/memory/ketch/web"},
                   "memory": {"usage": 1 << 20, "limit": 64 << 20},
                   "pids": {"usage": 3, "limit": None}},
        "root": {"type": "overlay", "source": "overlay", "options": ["rw"],
                 "lower": ["/l/2", "/l/1"],
                 "upper": "/c/upper", "work": "/c/work"},
        "mounts": [{"destination": "/proc", "type": "proc", "within": "/", "options": ["rw"]},
                   {"destination": "/v", "type": "ext4", "within": "/a", "options": ["ro"]}],
        "links": [link],
        "ports": [{"protocol": "tcp", "host": "0.0.0.0:80", "container": "172.17.0.2:8080",
                   "way": ["prerouting: map inet ketch any4 has it"]}],
        "capabilities": {"effective": ["CAP_CHOWN"], "bounding": []},
        "seccomp": {"mode": "filter", "allowed": 300},
        **changed,
    }  # fmt: skip


def words(drawn: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


def boxes(drawn: str, kind: str) -> list[tuple[float, float, float, float]]:
    return [
        (float(one.get("x", 0)), float(one.get("y", 0)), float(one.get("width", 0)),
         float(one.get("height", 0)))
        for one in ElementTree.fromstring(drawn).iter(f"{SVG}rect")
        if one.get("class") in kind.split()
    ]  # fmt: skip


def test_what_is_its_own_is_strong_and_what_is_the_hosts_faint() -> None:
    drawn = drawing.svg(found())
    assert len(boxes(drawn, "faint")) == 1, "the user namespace"
    # process, net, upper, eth0, veth1
    assert len(boxes(drawn, "strong")) == 5
    shown = words(drawn)
    assert "9: shared with other" in shown
    assert "user ids 0 to 65535 are 100000 to 165535 of the host" in shown
    assert "group ids from 0 on are the host's" in shown
    assert "tasks: 3 of no limit" in shown
    assert "/v  ext4, read-only  /a" in shown
    assert "map inet ketch any4" in shown
    assert drawn.count('class="tip"') == 2, "from the veth, and from the port"


def test_nothing_lies_on_anything_else() -> None:
    many = found(
        root={**found()["root"], "lower": [f"/layer/{number}" for number in range(130)]},
        mounts=[{"destination": f"/m{number}", "type": "tmpfs", "within": "/", "options": []}
                for number in range(100)],
        ports=found()["ports"] * 300,
    )  # fmt: skip
    for drawn in (drawing.svg(found()), drawing.svg(many), drawing.svg(found(links=[], ports=[]))):
        (page,) = boxes(drawn, "page")
        places = boxes(drawn, "box strong faint")
        for x, y, width, height in places + boxes(drawn, "frame"):
            assert 0 <= x < x + width <= page[2]
            assert 0 <= y < y + height <= page[3]
        for number, (x, y, width, height) in enumerate(places):
            for other_x, other_y, other_width, other_height in places[number + 1 :]:
                apart = (
                    x + width <= other_x or other_x + other_width <= x
                    or y + height <= other_y or other_y + other_height <= y
                )  # fmt: skip
                assert apart
    shown = words(drawing.svg(many))
    assert "and 120 layers more" in shown
    assert "and 88 more" in shown
    assert "and 288 more ports" in shown


@given(TEXT, TEXT, TEXT)
def test_no_name_breaks_out(name: str, path: str, network: str) -> None:
    link = {**found()["links"][0], "network": network}
    mount = {"destination": path, "type": "bind", "within": path, "options": []}
    drawn = drawing.svg(found(name=name, links=[link], mounts=[mount]))
    document = ElementTree.fromstring(drawn)
    assert {one.tag for one in document.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "title", "style", "rect", "text", "path")
    }
    assert "\x1b" not in drawn
