"""Where an ordinary user's, or a container's, control groups go, by what /proc and files say."""

import os
from pathlib import Path

import pytest

from ketch.cgroups import delegation
from ketch.errors import UnavailableError


class Unified:
    """The v2 hierarchy, with a directory of the test's for its root."""

    def __init__(self, root: Path, own: str) -> None:
        self.root, self.own = root, own

    def directory(self, path: str) -> str:
        return f"{self.root}{path}"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unified:
    """A machine whose one hierarchy has this process in a group that can be divided."""
    found = Unified(tmp_path, "/box")
    group(tmp_path / "box", "1\n2\n")
    monkeypatch.setattr(delegation, "_unified", lambda: found)
    monkeypatch.setattr("ketch.linux.namespaces.in_initial_user_namespace", lambda: False)
    monkeypatch.setattr(delegation, "_enter_scope", no_manager)
    monkeypatch.setattr("ketch.cgroups.delegation.read", lambda path: contents(path, found.own))
    return found


def no_manager(_name: str) -> None:
    raise UnavailableError("no manager of this user's")


def contents(path: str, own: str) -> str | None:
    if path == "/proc/self/cgroup":
        return f"0::{own}\n"
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return None


def group(directory: Path, processes: str = "") -> None:
    directory.mkdir()
    for name, text in (("cgroup.type", "domain\n"), ("cgroup.procs", processes),
                       ("cgroup.subtree_control", "")):  # fmt: skip
        (directory / name).write_text(text, encoding="ascii")


def divided(machine: Unified) -> bool:
    return (machine.root / "box" / delegation.LEAF).exists()


def test_containers_are_made_beside_the_engines_own_group(machine: Unified) -> None:
    assert delegation.subtree() == ""
    machine.own = f"/box/{delegation.LEAF}"
    assert delegation.subtree() == "/box"
    machine.own = f"/{delegation.LEAF}"
    assert delegation.subtree() == "/"
    machine.own = f"/box/{delegation.LEAF}-other"
    assert delegation.subtree() == ""
    machine.own = f"/box/{delegation.LEAF}/deeper"
    assert delegation.subtree() == ""


def moved(machine: Unified, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which processes ``enter`` moves; the kernel would take each out of the group's list."""
    found: list[str] = []

    def read(path: str) -> str | None:
        own, leaf = machine.root / "box/cgroup.procs", machine.root / "box" / delegation.LEAF
        if path == str(own) and (leaf / "cgroup.procs").exists():
            last = (leaf / "cgroup.procs").read_text(encoding="ascii")
            left = [pid for pid in own.read_text(encoding="ascii").split() if pid not in found]
            if last:
                found.extend(left)
                return ""
        return contents(path, machine.own)

    monkeypatch.setattr("ketch.cgroups.delegation.read", read)
    delegation.enter("/state")
    return found


def test_what_is_in_a_group_goes_below_it(
    machine: Unified, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert moved(machine, monkeypatch) == ["1", "2"]
    assert divided(machine)


@pytest.mark.parametrize("name", ["cgroup.type", "cgroup.procs", "cgroup.subtree_control", ""])
def test_a_group_that_is_not_ones_own_stays_whole(
    machine: Unified, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "cgroup.type":  # the machine's first one has no such file
        (machine.root / "box" / name).unlink()
    place = f"{machine.root}/box/{name}"
    kept = os.access
    monkeypatch.setattr(os, "access", lambda path, how: path != place and kept(path, how))
    delegation.enter("/state")
    assert not divided(machine)


def test_nothing_happens_where_there_is_nothing_to_do(
    machine: Unified, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.own = f"/box/{delegation.LEAF}"
    delegation.enter("/state")
    assert not divided(machine)
    # Root of the machine, in a login's or a service's group: systemd is asked by other ways.
    machine.own = "/box"
    monkeypatch.setattr("ketch.linux.namespaces.in_initial_user_namespace", lambda: True)
    delegation.enter("/state")
    assert not divided(machine)
    monkeypatch.setattr(delegation, "_unified", lambda: None)
    delegation.enter("/state")
    assert delegation.controllers() == ()


def test_a_manager_is_asked_before_a_group_is_divided(
    machine: Unified, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def scope(name: str) -> None:
        asked.append(name)
        machine.own = f"/user.slice/x.scope/{delegation.LEAF}"

    monkeypatch.setattr(delegation, "_enter_scope", scope)
    delegation.enter("/state")
    delegation.enter("/state")  # it is there already
    machine.own = "/box"
    delegation.enter("/other")
    assert len(asked) == len(set(asked)) == 2  # one a state directory
    assert not divided(machine)


def test_what_containers_can_be_limited_in(
    machine: Unified, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.own = f"/box/{delegation.LEAF}"
    (machine.root / "box/cgroup.controllers").write_text("cpu memory pids\n", encoding="ascii")
    assert delegation.controllers() == ("cpu", "memory", "pids")
    monkeypatch.setattr(os, "access", lambda _path, _how: False)
    assert delegation.controllers() == ()
