"""What is mounted for a container, or in it, stays in it, whatever it was built from."""

import pathlib
from collections.abc import Callable, Iterator

import pytest

from ketch.errors import InvalidArgumentError
from ketch.linux import mount
from tests.kernel.runtime.bundles import (
    MAPPED,
    Bundle,
    Config,
    configuration,
    in_user_namespace,
    join,
)
from tests.kernel.runtime.test_mounts import ON_TMPFS, bind, hosts, mounts

pytestmark = pytest.mark.root


@pytest.fixture
def shared(bundle: Bundle) -> Iterator[pathlib.Path]:
    """A mount in a peer group of the host's, with another one below it."""
    top = bundle.directory / "shared"
    top.mkdir()
    mount.mount("tmpfs", str(top), "tmpfs")
    mount.mount("", str(top), flags=mount.MS_SHARED)
    for name in ("empty", "below"):
        (top / name).mkdir()
    mount.mount("tmpfs", str(top / "below"), "tmpfs")
    (top / "below" / "file").write_text("the host's\n")
    yield top
    mount.umount2(str(top), mount.MNT_DETACH)


def _plain(config: Config, source: pathlib.Path) -> Config:
    return bind(config, source, "rbind")


def _by_type(config: Config, source: pathlib.Path) -> Config:
    return bind(config, source)


def _mapped(config: Config, source: pathlib.Path) -> Config:
    bind(config, source, "rbind")
    config["mounts"][-1] |= {"uidMappings": MAPPED, "gidMappings": MAPPED}
    return config


def _in_namespace(config: Config, source: pathlib.Path) -> Config:
    return bind(in_user_namespace(config), source, "rbind")


def _mapped_in_namespace(config: Config, source: pathlib.Path) -> Config:
    return bind(in_user_namespace(config), source, "rbind", "ridmap")


def _asked_in_namespace(config: Config, source: pathlib.Path) -> Config:
    config = bind(in_user_namespace(config), source, "rbind", "rshared")
    config["linux"]["rootfsPropagation"] = "rshared"
    return config


def _in_a_shared_root(config: Config, source: pathlib.Path) -> Config:
    config["linux"]["rootfsPropagation"] = "rshared"
    return bind(config, source, "rbind")


def _asked_by_the_mount_alone(config: Config, source: pathlib.Path) -> Config:
    return bind(config, source, "rbind", "rshared")


WAYS = (
    _plain, _by_type, _in_namespace, _asked_in_namespace, _in_a_shared_root,
    _asked_by_the_mount_alone,
    pytest.param(_mapped, marks=ON_TMPFS), pytest.param(_mapped_in_namespace, marks=ON_TMPFS),
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_is_mounted_on_a_bind_never_shows_on_the_host(
    bundle: Bundle, shared: pathlib.Path, way: Callable[[Config, pathlib.Path], Config]
) -> None:
    (bundle.rootfs / "mnt").mkdir()
    before = hosts(bundle)
    config = way(configuration("sleep", "60"), shared)
    for place in ("empty", "below"):
        config["mounts"].append(
            {"destination": f"/mnt/{place}", "type": "tmpfs", "source": "tmpfs"}
        )
    with bundle.container(config) as container:
        assert "/mnt/empty" in mounts(container.pid)
        assert hosts(bundle) == before
    # A creation that fails on the way takes nothing of the host's away either.
    config["mounts"].append({"destination": "/mnt/late", "type": "tmpfs", "options": ["nonsense"]})
    with pytest.raises(InvalidArgumentError, match="nonsense"):
        bundle.run(config)
    assert hosts(bundle) == before
    assert (shared / "below" / "file").read_text() == "the host's\n"


@pytest.mark.parametrize(
    ("propagation", "wanted"),
    [("", "master"), ("rslave", "master"), ("private", ""), ("rprivate", ""),
     ("rshared", "shared master")],
)  # fmt: skip
def test_how_far_a_bind_stays_with_its_source(
    bundle: Bundle, shared: pathlib.Path, propagation: str, wanted: str
) -> None:
    (bundle.rootfs / "mnt").mkdir()
    config = bind(configuration("sleep", "60"), shared, "rbind")
    if propagation:
        config["linux"]["rootfsPropagation"] = propagation
    for each in (config, in_user_namespace(config)):
        with bundle.container(each) as container:
            for path in ("/mnt", "/mnt/below"):
                marks = mounts(container.pid)[path].split(" - ")[0].split()[6:]
                assert [each.split(":")[0] for each in marks] == wanted.split()


def test_a_joined_mount_namespace_s_peers_hear_nothing(
    bundle: Bundle, shared: pathlib.Path
) -> None:
    with bundle.container(configuration("sleep", "60")) as owner:
        config = in_user_namespace(configuration("true"))
        join(config, "ipc", f"/proc/{owner.pid}/ns/ipc")  # through the process in between
        (bundle.rootfs / "mnt").mkdir()
        bind(config, shared, "rbind")
        config["mounts"].append({"destination": "/mnt/empty", "type": "tmpfs"})
        before = hosts(bundle)
        bundle.output(config)
        assert hosts(bundle) == before


@pytest.mark.parametrize("destination", ["/", "/..", "/to-root", "/tmp/../..", "ROOTFS"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind", "cgroup"])
def test_a_mount_on_the_root_itself_is_refused(bundle: Bundle, kind: str, destination: str) -> None:
    (bundle.rootfs / "to-root").symlink_to("..")
    config = configuration("true")
    source = "/tmp" if kind == "bind" else kind
    destination = destination.replace("ROOTFS", str(bundle.rootfs))
    config["mounts"].insert(
        0, {"destination": destination, "type": kind, "source": source, "options": []}
    )
    with pytest.raises(InvalidArgumentError, match="is the container's root itself"):
        bundle.run(config)


def test_a_root_among_the_paths_to_cover(bundle: Bundle) -> None:
    config = configuration("touch", "/new")
    config["linux"]["readonlyPaths"] = ["/"]
    assert "Read-only file system" in bundle.run(config)[1]
    config["linux"] = {**config["linux"], "readonlyPaths": [], "maskedPaths": ["/.."]}
    with pytest.raises(InvalidArgumentError, match=r"maskedPaths: /\.\. is the container's root"):
        bundle.run(config)
