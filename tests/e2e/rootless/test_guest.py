"""Root in a user namespace of somebody else's making: what works there, and what is said."""

import re

import pytest

from tests.support import images
from tests.support.users import User

SCRIPT = """
ketch="ketch --root $HOME/guest --state $HOME/guest-state"
set -e
$ketch import /tmp/{name}.tar busybox >/dev/null
for network in {networks}; do $ketch run --rm --network $network busybox id -u; done
printf 'FROM busybox\\nRUN chown 5 /etc/passwd\\n' >$HOME/guest/dockerfile
$ketch build -q --network none -t built - <$HOME/guest/dockerfile >/dev/null
$ketch run --rm --network none built echo built
$ketch run --rm busybox true
"""


def guest(user: User, networks: str, *options: str) -> tuple[list[str], str]:
    """Run the script in a new user namespace; return what it says, and its complaints."""
    place = images.busybox_archive()
    user.run("cp", str(place), f"/tmp/{user.name}.tar")
    try:
        script = SCRIPT.format(name=user.name, networks=networks)
        done = user.run("unshare", "--user", *options, "sh", "-c", script)
        return done.out.split(), done.err
    finally:
        user.run("unshare", "--user", *options, "rm", "-rf", "guest", "guest-state")
        user.run("rm", "-rf", "guest", "guest-state", f"/tmp/{user.name}.tar")


def test_with_namespaces_of_its_own_all_works(user: User) -> None:
    out, err = guest(user, "none host bridge", "--map-root-user", "--map-auto", "--mount", "--net")
    assert (out, err) == (["0", "0", "0", "built"], "")


def test_without_a_network_of_its_own_there_are_two(lone_user: User) -> None:
    out, err = guest(lone_user, "none host", "--map-root-user", "--mount")
    assert out == ["0", "0", "built"]
    assert "--network none and --network host need neither" in err


def test_without_mounts_of_its_own_it_says_so(user: User) -> None:
    out, err = guest(user, "none", "--map-root-user")
    assert out == []
    assert "this user namespace has no mount namespace of its own" in err


# A user namespace may have emulators of its own (Linux 6.7): no other process hears of this one,
# which says what it is to run. Its file is open from its registration on, so that steps need not
# have it. The header is a big-endian program's for s390x: elf(5).
EMULATED = r"""
set -e
cd "$HOME"
mkdir emulated emulated/context emulated/format
cp "$(command -v busybox)" emulated/echo
mount -t binfmt_misc none emulated/format || exit 77
printf '\177ELF\2\2\1\0\0\0\0\0\0\0\0\0\0\2\0\26\0\0\0\1' >emulated/context/sh
printf 'FROM scratch\nCOPY --chmod=755 sh /bin/\nRUN something for it\n' \
    >emulated/context/Dockerfile
build() {
    ketch --root "$HOME/emulated/root" --state "$HOME/emulated/state" build --progress=plain \
        --network none --platform linux/s390x -t made emulated/context 2>&1
}
build && exit 1
echo ":qemu-s390x:M:18:\x00\x16:\xff\xff:$HOME/emulated/echo:F" >emulated/format/register
build
"""


def test_steps_of_other_machines_are_an_emulators(lone_user: User) -> None:
    within = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        done = lone_user.run(*within, "sh", "-c", EMULATED, timeout=120)
    finally:
        lone_user.run(*within, "rm", "-rf", "emulated")
    if done.status == 77:
        pytest.skip("this kernel has no binfmt_misc of user namespaces (Linux 6.7)")
    assert done.status == 0, str(done)
    refused, _, built = done.out.partition("register an emulator with binfmt_misc")
    assert '"/bin/sh" is built for s390x, this machine is ' in refused
    assert re.search(r"^#\d+ [\d.]+ /bin/sh -c something for it$", built, re.MULTILINE), done.out
