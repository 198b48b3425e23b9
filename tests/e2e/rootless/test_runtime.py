"""``ketch-oci`` as an ordinary user: by itself, and as podman's runtime without root."""

import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.support import images, peers
from tests.support.commands import Engine, Result
from tests.support.users import User

RUNTIME = str(pathlib.Path(sys.executable).with_name("ketch-oci"))
# The machine's cgroup v1 gives a user none; where the user's files are, overlay may be refused.
_PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs",
           f"--runtime={RUNTIME}")  # fmt: skip


@pytest.fixture
def podman(user: User) -> Iterator[User]:
    """Return a user whose podman has the image ``busybox``."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    done(user.run(*_PODMAN, "import", str(images.busybox_archive()), "busybox"))
    yield user
    user.run("podman", "--storage-driver=vfs", "system", "reset", "--force")


def done(result: Result) -> str:
    assert result.status == 0, str(result)
    return result.out.strip()


def test_podmans_rootless_containers(podman: User) -> None:
    inside = done(podman.run(*_PODMAN, "run", "--rm", "--network=none", "busybox", "sh", "-c",
                             "id -u; cat /proc/self/uid_map"))  # fmt: skip
    assert inside.split()[:4] == ["0", "0", str(podman.uid), "1"]
    done(podman.run(*_PODMAN, "run", "-d", "--name=one", "--network=none", "busybox", "sleep",
                    "1000"))  # fmt: skip
    assert done(podman.run(*_PODMAN, "exec", "one", "echo", "here")) == "here"
    done(podman.run(*_PODMAN, "rm", "--force", "--time=0", "one"))


@pytest.fixture
def newer_podman(run_name: str) -> Iterator[Engine]:
    """Return the podman of Debian 13, as an ordinary user of that, with the image ``busybox``."""
    if not peers.TREE.exists():
        pytest.skip("there is no tree of Debian 13: make peers")
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    try:
        directory.chmod(0o755)
        with peers.places(directory) as inside:
            root = Engine("root", inside)
            # The machine's /dev/net/tun may be root's: the user has one of its own.
            done(root("sh", "-ec", "useradd --create-home ann; mkdir -m 700 /run/ann;"
                      " chown ann /run/ann; mkdir /run/net; mknod -m 666 /run/net/tun c 10 200;"
                      " mount --bind /run/net/tun /dev/net/tun"))  # fmt: skip
            podman = ("podman", "--cgroup-manager=cgroupfs", "--events-backend=file",
                      "--storage-driver=vfs", "--runtime=/opt/ketch/bin/ketch-oci")  # fmt: skip
            ann = Engine("ann", [
                *inside, "setpriv", "--reuid=ann", "--regid=ann", "--init-groups", "--reset-env",
                "--", "env", "PATH=/usr/bin:/usr/sbin", "XDG_RUNTIME_DIR=/run/ann", "sh", "-c",
                'cd; exec "$@"', "sh", *podman,
            ])  # fmt: skip
            done(ann("import", str(images.busybox_archive()), "busybox", timeout=110))
            yield ann
            ann("rm", "--force", "--all", "--time=0")
            ann("system", "migrate")  # ends what keeps its namespaces
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(600)
def test_the_rootless_containers_of_podman_5(newer_podman: Engine) -> None:
    def run(*words: str) -> str:
        return done(newer_podman("run", *words, timeout=110))

    assert newer_podman.ok("version", "--format", "{{.Client.Version}}") >= "5"
    inside = run("--rm", "--network=none", "busybox", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert inside.split()[:2] == ["0", "0"]
    assert len(inside.splitlines()) == 3  # the user, and its subordinate ids
    assert "(ann)" in run("--rm", "--network=none", "--userns=keep-id", "busybox", "id")
    assert run("--rm", "--network=none", "--device=/dev/zero:/dev/q", "busybox", "stat", "-c",
               "%t:%T", "/dev/q") == "1:5"  # fmt: skip
    run("-d", "--name=one", "busybox", "sleep", "1000")  # by podman's pasta
    assert set(done(newer_podman("exec", "one", "ls", "/sys/class/net")).split()) > {"lo"}
    assert done(newer_podman("inspect", "-f", "{{.State.Status}}", "one")) == "running"
    done(newer_podman("rm", "--force", "--time=0", "one"))


@pytest.mark.parametrize("runtime", ["ketch-oci", "runc"])
def test_words_of_rootless(user: User, runtime: str) -> None:
    """Where cgroups cannot be made one is told, or goes on without."""
    path = RUNTIME if runtime == "ketch-oci" else shutil.which(runtime)
    if not path:
        pytest.skip("runc is not installed")
    directory = f"bundle-{runtime}"
    made = (
        f"mkdir -p {directory}/rootfs && tar -xf {images.busybox_archive()} -C {directory}/rootfs"
        f" && cd {directory} && {path} spec --rootless && sed -i"
        """ 's/"terminal": true/"terminal": false/; s/"sh"/"id","-u"/' config.json"""
    )
    done(user.run("sh", "-c", made))
    for word in ("true", "1", "T", "auto", "AUTO"):
        assert done(user.run(path, f"--rootless={word}", "run", "-b", directory, "one")) == "0"
    for word in ("false", "0", "F", "maybe"):
        refused = user.run(path, f"--rootless={word}", "run", "-b", directory, "one")
        assert (refused.status, refused.out) == (1, ""), str(refused)
        assert ("maybe" if word == "maybe" else "ermission denied") in refused.err


def test_a_bundle_that_spec_has_made(user: User) -> None:
    made = (
        f"mkdir -p bundle/rootfs && tar -xf {images.busybox_archive()} -C bundle/rootfs"
        f" && cd bundle && {RUNTIME} spec --rootless && sed -i"
        """ 's/"terminal": true/"terminal": false/; s/"sh"/"id","-u"/' config.json"""
        f" && {RUNTIME} run one && {RUNTIME} --rootless=true run two"
    )
    assert done(user.run("sh", "-c", made)) == "0\n0"
