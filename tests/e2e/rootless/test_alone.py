"""A user who has no id but its own: images of many owners, installers, and what comes of them."""

import io
import json
import pathlib
import tarfile

import pytest

from tests.support import images
from tests.support.users import User

# Builds a package whose files and script want owners, set-id bits and a device, and installs it.
INSTALL = r"""
set -e
mkdir -p /p/DEBIAN /p/usr/lib/team /p/var/lib/team
cat >/p/DEBIAN/control <<END
Package: team
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: has files of several owners
END
cat >/p/DEBIAN/postinst <<END
#!/bin/sh
set -e
useradd --system --user-group --uid 321 team
chown -R team:team /var/lib/team
chgrp mail /usr/lib/team/tool; chmod 2755 /usr/lib/team/tool
mknod -m 640 /var/lib/team/null c 1 3
END
chmod 755 /p/DEBIAN/postinst
echo tool >/p/usr/lib/team/tool; ln -s data /p/var/lib/team/link; echo data >/p/var/lib/team/data
dpkg-deb --build /p /team.deb
rm -r /p
apt-get install -y /team.deb
su games -s /bin/sh -c true
"""


@pytest.fixture(scope="session")
def debian(lone_user: User) -> str:
    lone_user.ketch.ok("import", "-", "debian", stdin=images.debian_archive().read_bytes())
    return "debian"


def members(user: User, *command: str) -> dict[str, tarfile.TarInfo]:
    """Return the members of the archive that a command writes."""
    place = f"/tmp/{user.name}.tar"
    try:
        assert user.run("sh", "-c", f"{' '.join(command)} > {place}").status == 0
        with tarfile.open(place) as archive:
            return {member.name.removeprefix("./"): member for member in archive}
    finally:
        pathlib.Path(place).unlink()


def layer(user: User, image: str) -> dict[str, tarfile.TarInfo]:
    """Return the members of an image's last layer, as it is saved and pushed."""
    place = pathlib.Path(f"/tmp/{user.name}.tar")
    try:
        assert user.run("sh", "-c", f"ketch save {image} > {place}").status == 0
        with tarfile.open(place) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            blob = archive.extractfile(json.load(manifest)[0]["Layers"][-1])
            assert blob is not None
            with tarfile.open(fileobj=io.BytesIO(blob.read())) as inner:
                return {member.name.removeprefix("./"): member for member in inner}
    finally:
        place.unlink()


def owner(member: tarfile.TarInfo) -> tuple[int, int]:
    return member.uid, member.gid


def test_installers_work_and_owners_are_remembered(lone_user: User, debian: str) -> None:
    ketch = lone_user.ketch
    ketch.ok("run", "--name", "installing", "--network", "none", debian, "sh", "-c", INSTALL,
             timeout=120)  # fmt: skip
    try:
        ketch.ok("commit", "--pause=false", "installing", "installed")
        for found in (members(lone_user, "ketch", "export", "installing"),
                      layer(lone_user, "installed")):  # fmt: skip
            assert owner(found["var/lib/team"]) == owner(found["var/lib/team/data"]) == (321, 321)
            tool, null = found["usr/lib/team/tool"], found["var/lib/team/null"]
            assert (*owner(tool), tool.mode) == (0, 8, 0o2755)
            assert null.ischr()
            assert (null.devmajor, null.devminor, null.mode) == (1, 3, 0o640)
            assert not any("override_stat" in key for key in tool.pax_headers)
        # Owners that the image has, without anybody's doing.
        assert owner(members(lone_user, "ketch", "export", "installing")["var/mail"]) == (0, 8)
        assert "zz-ketch" not in ketch.ok("diff", "installing")
        seen = ketch.ok("run", "--rm", "--network", "none", "installed", "stat", "-c", "%u %a",
                        "/usr/lib/team/tool")  # fmt: skip
        assert seen == "0 2755"
    finally:
        ketch.ok("rm", "installing")
        ketch("rmi", "installed")


def test_what_is_built_and_copied_has_its_owners(lone_user: User) -> None:
    dockerfile = (
        "FROM busybox\\nCOPY --chown=7:8 file /copied\\nRUN touch /made && chown 9:10 /made\\n"
        "FROM busybox\\nCOPY --from=0 /copied /made /\\nCOPY --from=0 --chown=5 /made /own\\n"
    )
    ketch = lone_user.ketch
    script = f"mkdir -p c && cd c && echo x > file && printf '{dockerfile}' > Dockerfile"
    built = lone_user.run("sh", "-c", f"{script} && ketch build -q -t built .")
    assert built.status == 0, str(built)
    ketch.ok("create", "--name", "copying", "built", "true")
    try:
        found = members(lone_user, "ketch", "export", "copying")
        assert [owner(found[name]) for name in ("copied", "made", "own")] == [
            (7, 8), (9, 10), (5, 5),
        ]  # fmt: skip
        # Out to the user's own directory, whose files cannot have that owner, and in again.
        copies = "ketch cp -a copying:/copied out && ketch cp -a out copying:/again"
        assert lone_user.run("sh", "-c", copies).status == 0
        assert (lone_user.home / "out").stat().st_uid == lone_user.uid
        found = members(lone_user, "ketch", "cp", "copying:/again", "-")
        assert owner(found["again"]) == (7, 8)
    finally:
        ketch.ok("rm", "copying")
        ketch("rmi", "built")


def test_exec_remembers_and_paths_mean_what_they_mean_inside(lone_user: User) -> None:
    ketch = lone_user.ketch
    (outside := pathlib.Path("/tmp", lone_user.name)).touch()
    ketch.ok("run", "-d", "--name", "looking", "--network", "none", "busybox", "sleep", "1000")
    script = (
        "mkdir /d && touch /d/f /g && ln -s /g /d/l && cd /d && chown 1:2 f l . && chown -h 3 l"
        f" && touch /tmp/{lone_user.name} && chown 4 ../../../tmp/{lone_user.name} 3<f <&3"
        " && chown 5 /dev/stdout && ! chown 6 /d/missing && chown 1:7 f"
    )
    try:
        ketch.ok("exec", "looking", "sh", "-c", script)
        found = members(lone_user, "ketch", "export", "looking")
        assert [owner(found[name]) for name in ("d", "d/f", "g", "d/l")] == [
            (1, 2), (1, 7), (1, 2), (0, 0),
        ]  # fmt: skip
        assert owner(found[f"tmp/{lone_user.name}"]) == (4, 0)
    finally:
        ketch.ok("rm", "-f", "looking")
        outside.unlink()


def test_a_program_is_whom_the_image_says(lone_user: User) -> None:
    script = "id -u; id -g; touch /etc/new && stat -c %u:%g /etc/new /bin/sh"
    run = ("run", "--rm", "--network", "none", "--user")
    found = lone_user.ketch.ok(*run, "33:34", "busybox", "sh", "-c", script)
    assert found.split() == ["33", "34", "33:34", "33:34"]
    assert lone_user.ketch.ok(*run, "www-data", "busybox", "id", "-un") == "www-data"
    dockerfile = "FROM busybox\\nUSER 33\\nRUN id -u > /tmp/told && grep -qx 33 /tmp/told\\n"
    built = lone_user.run("sh", "-c", f"printf '{dockerfile}' | ketch build -q --network none -")
    assert built.status == 0, str(built)


def test_who_may_not_change_owners_is_refused(lone_user: User) -> None:
    for options in (["--cap-drop", "chown"], ["--cap-drop", "all"]):
        refused = lone_user.ketch("run", "--rm", "--network", "none", *options, "busybox",
                                  "chown", "5", "/etc/passwd")  # fmt: skip
        assert refused.status == 1
    for options in (["--privileged"], ["--security-opt", "seccomp=unconfined"]):
        lone_user.ketch.ok("run", "--rm", "--network", "none", *options, "busybox",
                           "chown", "5", "/etc/passwd")  # fmt: skip


def test_an_archive_cannot_say_what_is_remembered(lone_user: User) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("file")
        member.pax_headers = {"SCHILY.xattr.user.containers.override_stat": "9:9:4755:char-1-3"}
        archive.addfile(member)
    ketch = lone_user.ketch
    ketch.ok("import", "-", "lying", stdin=data.getvalue())
    ketch.ok("create", "--name", "lying", "lying", "true")
    try:
        found = members(lone_user, "ketch", "export", "lying")["file"]
        assert (found.isreg(), owner(found)) == (True, (0, 0))
    finally:
        ketch.ok("rm", "lying")
        ketch.ok("rmi", "lying")
