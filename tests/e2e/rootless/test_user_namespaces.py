"""``--userns`` and groups as an ordinary user has them: podman's rootless modes."""

import io
import pathlib
import subprocess
import tarfile

import pytest

from tests.support.users import User


def inside(user: User, mode: str, script: str, *options: str) -> list[str]:
    """Return the words of a shell script in busybox with ids of its own."""
    return user.ketch.ok("run", "--rm", "--userns", mode, "--network", "none", *options,
                         "busybox", "sh", "-c", script).split()  # fmt: skip


UNITS = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
OWNERS = "stat -c %u:%g / /bin/sh /etc/hosts /dev/shm"


def test_the_users_own_id_is_the_same_inside(user: User) -> None:
    user.run("sh", "-c", "mkdir -p kept && echo mine > kept/file")
    own = f"{user.uid}:{user.uid}"
    script = f"id -u; id -un; pwd; echo $HOME; stat -c %u:%g /w/file; touch /w/new; {OWNERS}"
    told = inside(user, "keep-id", script, "-v", "./kept:/w", "-w", "/w")
    assert told[:5] == [str(user.uid), user.name, "/w", "/w", own]
    assert told[5:] == ["0:0"] * 4
    assert (user.home / "kept/new").stat().st_uid == user.uid
    # The user's own home directory counts, where the container has it.
    assert inside(user, "keep-id", "echo $HOME", "-v", f"{user.home}:{user.home}") == [
        str(user.home)
    ]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("keep-id:uid=33,gid=34", "0 1 33 33 0 1 34 34 65503 33 34"),
        ("nomap", "0 1 65536 0 0"),
        ("auto", "0 1 1024 0 0"),
        ("auto:size=3000", "0 1 3000 0 0"),
    ],
)
def test_ids_of_a_mode(user: User, mode: str, expected: str) -> None:
    told = inside(user, mode, f"cat /proc/self/uid_map; id -u; id -g; {OWNERS}; touch /tmp/x")
    assert told == [*expected.split(), *["0:0"] * 4]


def test_ids_can_be_named_by_those_of_the_users_namespace(user: User) -> None:
    maps = ("--uidmap", "0:1:1000", "--uidmap", "5000:0:1", "--network", "none")
    out = user.ketch.ok("run", "--rm", *maps, "busybox", "cat", "/proc/self/uid_map")
    assert out.split() == ["0", "1", "1000", "5000", "0", "1"]
    # The others stay where they can, and numbers may be the machine's.
    extended = ("--uidmap", f"+1000:@{user.uid}", "--network", "none")
    out = user.ketch.ok("run", "--rm", *extended, "busybox", "cat", "/proc/self/uid_map")
    assert out.split() == ["0", "1", "1000", "1000", "0", "1", "1001", "1001", "64536"]
    refused = user.ketch("run", "--rm", "--uidmap", "0:100000:5", "busybox", "true")
    assert refused.status == 125
    assert "user ids 100000 to 100004, which the container is to have, are not there" in refused.err


def test_files_have_the_images_owners_wherever_they_go(user: User) -> None:
    ketch = user.ketch
    script = "touch /new; chown 7:8 /new; rm /bin/vi; echo ready; exec sleep 1000"
    ketch.ok("run", "-d", "--name", "kept", "--userns", "keep-id", "-u", "0", "busybox", "sh", "-c",
             script)  # fmt: skip
    try:
        while "ready" not in ketch.ok("logs", "kept"):
            pass
        listing = "ketch cp kept:/new - | tar --list --verbose --numeric-owner"
        assert " 7/8 " in user.run("sh", "-c", listing).out
        assert ketch.ok("diff", "kept").split("\n")[-1] == "A /new"
        ketch.ok("commit", "--pause=false", "kept", "kept-image")
        ketch.ok("stop", "-t", "0", "kept")
        assert " 7/8 " in user.run("sh", "-c", listing).out
        ketch.ok("cp", "kept:/new", "/tmp/" + user.name)
        look = ("kept-image", "sh", "-c", "stat -c %u:%g /new /bin/sh; test ! -e /bin/vi")
        for mode in ("host", "keep-id", "auto"):
            out = ketch.ok("run", "--rm", "--userns", mode, "--network", "none", *look)
            assert out.split() == ["7:8", "0:0"], mode
    finally:
        ketch.ok("rm", "-f", "kept")
        ketch("rmi", "kept-image")
        pathlib.Path("/tmp", user.name).unlink(missing_ok=True)


@pytest.mark.parametrize(("mode", "owner"), [("auto", "0"), ("nomap", "0"), ("keep-id", "own")])
def test_a_new_volume_can_be_written_to(user: User, mode: str, owner: str) -> None:
    """What the image has at its place, and what has nothing there."""
    script = "touch /empty/file && stat -c %u /empty /empty/file && stat -c %u /etc/passwd"
    told = inside(user, mode, script, "-v", "/empty", "-v", "/etc")
    assert told == [str(user.uid) if owner == "own" else owner] * 2 + ["0"]


def test_what_is_mounted_can_be_given_to_the_containers_user(user: User) -> None:
    user.run("sh", "-c", "mkdir -p given/inner && touch given/inner/f && ln -s /etc given/link")
    script = "stat -c %u:%g /w /w/inner/f; touch /w/new"
    run = ("run", "--rm", "--network", "none", "-v", "./given:/w:U", "-u", "7:8")
    assert user.ketch.ok(*run, "busybox", "sh", "-c", script).split() == ["7:8"] * 2
    outside = (user.home / "given/inner/f").stat().st_uid
    assert outside not in {7, user.uid}
    # A volume likewise, and back again.
    told = inside(user, "keep-id", "stat -c %u /w /w/new /w/inner/f", "-v", "./given:/w:U")
    assert told == [str(user.uid)] * 3
    assert (user.home / "given/new").stat().st_uid == user.uid
    told = inside(user, "auto", "stat -c %u /v", "-v", "given-volume:/v:U", "-u", "9")
    assert told == ["9"]
    user.ketch.ok("volume", "rm", "given-volume")
    refused = user.ketch("run", "--rm", "-v", "/usr:/u:U", "busybox", "true")
    assert refused.status == 125
    assert 'chowning host path "/usr" is not allowed' in refused.err
    mount = "type=bind,src=./given,dst=/w,idmap"
    for mode in ("host", "keep-id"):
        refused = user.ketch("create", "--userns", mode, "--mount", mount, "busybox", "true")
        assert (refused.status, "idmap is for root of the machine" in refused.err) == (1, True)
        assert "U=true" in refused.err


def test_labels_are_passed_over_where_nothing_is_labelled(user: User) -> None:
    user.run("mkdir", "-p", "labelled")
    for label in ("z", "Z", "ro,z"):
        inside(user, "host", "ls /w", "-v", f"./labelled:/w:{label}")


def test_images_of_devices_and_of_ids_that_are_not_there(user: User) -> None:
    archives = []
    for name, uid, kind in (("node", 0, tarfile.CHRTYPE), ("far", 70000, tarfile.REGTYPE)):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.uid, member.type = uid, kind
            archive.addfile(member)
        archives.append(data.getvalue())
    user.ketch.ok("import", "-", "with-node", stdin=archives[0])
    user.ketch.ok("rmi", "with-node")
    refused = user.ketch("import", "-", "with-far", stdin=archives[1])
    assert refused.status == 1
    assert "belongs to 70000:0, and this user has no ids as high" in refused.err


def test_a_user_alone_has_no_other_ids(lone_user: User) -> None:
    told = inside(lone_user, "keep-id", f"id -u; {OWNERS}; touch /root/x")
    assert told == [str(lone_user.uid), *[f"{lone_user.uid}:{lone_user.uid}"] * 4]
    for mode in ("nomap", "auto"):
        refused = lone_user.ketch("run", "--rm", "--userns", mode, "busybox", "true")
        assert refused.status == 125
        assert {"nomap": "no ids but its own", "auto": "no 1024 user"}[mode] in refused.err


def test_the_callers_groups_stay_where_that_is_asked_for(
    user: User, tmp_path: pathlib.Path
) -> None:
    group, shared = f"{user.name}-g", pathlib.Path("/tmp", f"{user.name}-shared")
    subprocess.run(["groupadd", group], check=True)
    try:
        subprocess.run(["gpasswd", "-a", user.name, group], check=True, stdout=subprocess.DEVNULL)
        shared.mkdir()
        subprocess.run(["chgrp", group, shared], check=True)
        shared.chmod(0o770)
        run = ("run", "--rm", "--network", "none", "-v", f"{shared}:/s")
        assert user.ketch(*run, "busybox", "touch", "/s/a").status == 1
        for mode in ("host", "keep-id"):
            user.ketch.ok(*run, "--userns", mode, "--group-add", "keep-groups", "busybox",
                          "touch", f"/s/{mode}")  # fmt: skip
        refused = user.ketch(*run, "--group-add", "keep-groups", "--group-add", "5", "busybox",
                             "true")  # fmt: skip
        assert "not allowed with any other --group-add" in refused.err
    finally:
        subprocess.run(["rm", "-rf", shared], check=True)
        subprocess.run(["groupdel", group], check=True)


def test_copies_of_layers_are_told_of_and_pruned(user: User) -> None:
    ketch = user.ketch

    def told() -> tuple[float, float]:
        """What images take, and how much of that could be got back, in megabytes."""
        row = ketch.ok("system", "df", "--format", "{{.Size}} {{.Reclaimable}}").splitlines()[0]
        size, reclaimable = (
            float(one.rstrip("kMGB")) * UNITS[one.lstrip(".0123456789")] for one in row.split()[:2]
        )
        return size, reclaimable

    ketch.ok("rm", "-f", *ketch.ok("ps", "-aq").split(), "nobody")
    ketch.ok("image", "prune", "-f")
    whole, _ = told()
    run = ("--network", "none", "--userns", "keep-id", "busybox")
    ketch.ok("create", "--name", "keeper", *run, "true")
    try:
        size, unused = told()  # images of other tests too
        one = size - whole
        assert one > 1
        for count in (300, 400):
            inside(user, f"auto:size={count}", "true")
        size, reclaimable = told()
        assert size == pytest.approx(whole + 3 * one, rel=0.05)
        assert reclaimable == pytest.approx(unused + 2 * one, rel=0.05)
        pruned = ketch.ok("image", "prune", "-f").splitlines()[-1]
        assert pruned.startswith("Total reclaimed space: ")
        freed = float(pruned.split()[-1].removesuffix("MB"))  # of two copies of busybox
        assert freed == pytest.approx(2 * one, rel=0.1)
        size, reclaimable = told()
        assert size == pytest.approx(whole + one, rel=0.05)
        assert reclaimable == pytest.approx(unused)
        assert ketch.ok("start", "-a", "keeper") == ""
    finally:
        ketch.ok("rm", "-f", "keeper")
    ketch.ok("image", "prune", "-f")
    assert told()[0] == pytest.approx(whole, rel=0.05)
