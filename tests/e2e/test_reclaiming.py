"""Bridges of engines whose root directory is no more, and of those whose is only out of sight."""

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import pytest

from ketch.engine.networks.default import default_bridge
from ketch.linux import rtnetlink
from tests.support import images, leftovers
from tests.support.commands import Engine

Make = Callable[..., Engine]


@pytest.fixture
def make(ketch: Engine, run_name: str, tmp_path: pathlib.Path) -> Iterator[Make]:
    """Return what makes an engine with a root of its own, which has started a container."""
    made: list[str] = []

    def engine(root: pathlib.Path, *before: str) -> Engine:
        state = tempfile.mkdtemp(prefix=f"{run_name}-", dir=tmp_path)
        new = Engine("ketch", [*before, ketch.prefix[0], "--root", str(root), "--state", state])
        made.append(default_bridge(str(root)))
        new.ok("import", str(images.busybox_archive()), "busybox")
        new.ok("run", "--rm", "busybox", "true")
        return new

    yield engine
    leftovers.stop_zygotes(run_name)
    for name in made:
        if exists(name):
            leftovers.remove_network(name)


def exists(name: str) -> bool:
    return os.path.exists(f"/sys/class/net/{name}")


def choose(engine: Engine) -> None:
    """Have an engine look for a subnet."""
    engine.ok("network", "create", "chosen")
    engine.ok("network", "rm", "chosen")


def test_bridges_of_a_root_that_is_gone_are_deleted(
    ketch: Engine, make: Make, tmp_path: pathlib.Path
) -> None:
    root = tmp_path / "gone"
    other = make(root)
    network = other.ok("network", "create", "own")
    bridges = [default_bridge(str(root)), f"ketch{network[:10]}"]
    choose(ketch)
    assert all(map(exists, bridges)), "there is the root"
    shutil.rmtree(root)
    told = ketch("network", "create", "--explain", "chosen").err
    ketch.ok("network", "rm", "chosen")
    assert not any(map(exists, bridges))
    assert all(f"delete the bridge {name} · " in told for name in bridges)
    rules = subprocess.run(["nft", "list", "table", "inet", "ketch"], capture_output=True,
                           text=True, check=True).stdout  # fmt: skip
    assert not any(name in rules for name in bridges)


def test_a_bridge_in_use_stays(ketch: Engine, make: Make, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "used"
    other = make(root)
    other.ok("run", "-d", "--name", "user", "busybox", "sleep", "60")
    hidden = root.rename(tmp_path / "hidden")
    try:
        choose(ketch)
        assert exists(default_bridge(str(root)))
    finally:
        hidden.rename(root)
        other.ok("rm", "-f", "user")


def test_a_root_that_is_not_mounted_is_not_gone(
    ketch: Engine, make: Make, tmp_path: pathlib.Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "disk", str(place)], check=True)
    try:
        make(place / "root")
        leftovers.stop_zygotes(os.environ[leftovers.RUN_VARIABLE])
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    choose(ketch)
    assert exists(default_bridge(str(place / "root")))


def test_a_root_in_another_mount_namespace_is_not_gone(
    ketch: Engine, make: Make, tmp_path: pathlib.Path
) -> None:
    """On the same device, but nowhere to be seen."""
    place, real = tmp_path / "seen", tmp_path / "real"
    place.mkdir()
    real.mkdir()
    script = f'mount --bind {real} {place} && exec "$@"'
    make(place / "root", "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    assert (real / "root").exists()
    assert not (place / "root").exists()
    choose(ketch)
    assert exists(default_bridge(str(place / "root")))


def test_what_others_wrote_to_links_is_nobodys_sentence(ketch: Engine, run_name: str) -> None:
    """Neither other bridges, nor words like ours, nor what is no bridge."""
    name = f"k{run_name[-8:]}"
    with rtnetlink.Socket() as host:
        host.execute(rtnetlink.add_bridge(name, "02:42:00:00:00:01", 1500))
        link = host.link(name)
        assert link is not None
        try:
            for alias in (
                "",
                "ketch",
                "ketch root",
                "ketch root 1-2-3 4 /nowhere",
                "ketch root  x",
            ):
                host.execute(rtnetlink.set_alias(link.index, alias))
                choose(ketch)
                assert exists(name), alias
        finally:
            host.execute(rtnetlink.delete_link(link.index))
