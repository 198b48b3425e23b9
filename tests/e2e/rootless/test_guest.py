"""Root in a user namespace of somebody else's making: what works there, and what is said."""

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
