"""Volumes: filled from the image, shared, kept, protected; and the commands about them."""

import io
import json
import os
import pathlib
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.commands import Engine


@pytest.fixture
def image(engine: Engine, tmp_path: pathlib.Path) -> str:
    """Return an image with a VOLUME whose directory holds one of each kind of file."""
    archive = tmp_path / "image.tar"
    archive.write_bytes(images.busybox_archive().read_bytes())
    with tarfile.open(archive, "a") as tar:

        def add(
            name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **facts: object
        ) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode = kind, len(content), 0o644
            for fact, value in facts.items():
                setattr(member, fact, value)
            tar.addfile(member, io.BytesIO(content))

        add("data", tarfile.DIRTYPE, mode=0o2750, uid=1000, gid=1001)
        add("data/file", content=b"from the image\n", uid=1000, mode=0o4711)
        add("data/again", tarfile.LNKTYPE, linkname="data/file", uid=1000, mode=0o4711)
        add("data/link", tarfile.SYMTYPE, linkname="/etc/passwd")
        add("data/fifo", tarfile.FIFOTYPE, mode=0o600)
        add("data/below", tarfile.DIRTYPE, mode=0o700)
        add("data/below/empty")
    engine.ok("import", "-c", "VOLUME /data", str(archive), "with-volume")
    return "with-volume"


@pytest.fixture
def clean(engine: Engine) -> Iterator[None]:
    """Remove the test's containers and volumes at its end."""
    yield
    for container in engine.ok("ps", "-aq").split():
        engine.ok("rm", "-f", "-v", container)
    for volume in engine.ok("volume", "ls", "-q").split():
        engine.ok("volume", "rm", volume)


def volumes(engine: Engine) -> set[str]:
    return set(engine.ok("volume", "ls", "-q").split())


def run(engine: Engine, *words: str) -> str:
    return engine.ok("run", "--rm", "--network", "none", *words)


@pytest.mark.many_ids("programs see all files as root's")
@pytest.mark.user
@pytest.mark.usefixtures("clean")
def test_a_volume_is_filled_from_the_image_and_outlives_containers(
    engine: Engine, image: str
) -> None:
    look = (
        "stat -c '%n %F %a %u:%g' /data /data/file /data/below /data/fifo; readlink /data/link;"
        "test /data/file -ef /data/again && echo linked; cat /data/file"
    )
    filled = run(engine, "-v", "kept:/data", image, "sh", "-c", f"{look}; echo mine > /data/new")
    assert filled.splitlines() == [
        "/data directory 2750 1000:1001", "/data/file regular file 4711 1000:0",
        "/data/below directory 700 0:0", "/data/fifo fifo 600 0:0", "/etc/passwd", "linked",
        "from the image",
    ]  # fmt: skip
    # What is in a volume already is left alone, wherever it is mounted.
    seen = run(engine, "-v", "kept:/bin/x:ro", "busybox", "sh", "-c", "cat /bin/x/new; ls /bin/x")
    assert seen.split() == ["mine", "again", "below", "fifo", "file", "link", "new"]
    assert run(engine, "-v", "bare:/data:nocopy", image, "ls", "/data") == ""
    mount = "type=volume,src=other,dst=/data,volume-nocopy,volume-label=a=b"
    assert run(engine, "--mount", mount, image, "ls", "/data") == ""
    assert engine.ok("volume", "ls", "-q", "--filter", "label=a=b") == "other"
    refused = engine("run", "--rm", "-v", "kept:/x:ro", "busybox", "touch", "/x/y")
    assert "Read-only file system" in refused.err
    assert volumes(engine) == {"kept", "bare", "other"}


@pytest.mark.usefixtures("clean")
def test_anonymous_volumes_go_with_their_container_if_asked(engine: Engine, image: str) -> None:
    assert run(engine, "-v", "/own", image, "sh", "-c", "touch /own/x; cat /data/file")
    assert volumes(engine) == set()
    container = engine.ok("create", "-v", "/own", "--mount", "type=volume,dst=/more", image, "true")
    (first, *others) = volumes(engine)
    assert len(others) == 2
    assert len(first) == 64
    assert engine.ok("volume", "ls", "-q", "--filter", "dangling=true") == ""
    engine.ok("rm", container)
    assert volumes(engine) == {first, *others}
    assert engine.ok("volume", "prune", "-f").splitlines()[0] == "Deleted Volumes:"
    if engine.name == "docker":  # 26 takes the one of --mount for one with a name
        engine.ok("volume", "prune", "-a", "-f")
    assert volumes(engine) == set()
    engine.ok("create", "--name", "again", "-v", "named:/n", image, "true")
    assert len(volumes(engine)) == 2
    engine.ok("rm", "-v", "again")
    assert volumes(engine) == {"named"}


@pytest.mark.usefixtures("clean")
def test_volumes_of_other_containers(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    script = "echo a > /a/f; echo b > /b/f"
    engine.ok("run", "--name", "donor", "--network", "none", "-v", "/a", "-v", "named:/b",
              "-v", f"{tmp_path}:/c:ro", "busybox", "sh", "-c", script)  # fmt: skip
    assert run(engine, "--volumes-from", "donor", "busybox", "cat", "/a/f", "/b/f",
               "/c/file") == "a\nb\nof the host"  # fmt: skip
    for words in (["donor:ro", "touch", "/a/x"], ["donor", "touch", "/c/x"]):
        refused = engine("run", "--rm", "--volumes-from", words[0], "busybox", *words[1:])
        assert "Read-only file system" in refused.err
    own = run(engine, "--volumes-from", "donor", "-v", "named:/a", "busybox", "cat", "/a/f")
    assert own == "b"
    engine.ok("create", "--name", "heir", "--volumes-from", "donor:ro", "busybox", "true")
    points = json.loads(engine.ok("inspect", "-f", "{{json .Mounts}}", "heir"))
    assert {(point["Type"], point["Destination"], point["RW"]) for point in points} == {
        ("volume", "/a", False), ("volume", "/b", False), ("bind", "/c", False),
    }  # fmt: skip
    # The anonymous volume is the other container's as well.
    engine.ok("rm", "-v", "donor")
    assert len(volumes(engine)) == 2


@pytest.mark.many_ids("no file system can have another owner")
@pytest.mark.user
@pytest.mark.usefixtures("clean")
def test_options_of_the_local_driver(engine: Engine, tmp_path: pathlib.Path) -> None:
    engine.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o",
              "o=size=1m,uid=1000", "memory")  # fmt: skip
    engine.ok("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind",
              "elsewhere")  # fmt: skip
    engine.ok("run", "-d", "--name", "one", "--network", "none", "-v", "memory:/m", "busybox",
              "sleep", "60")  # fmt: skip
    script = "stat -c %u /m; df -k /m | awk 'END{print $2}'; touch /m/shared /e/made"
    out = run(engine, "-v", "memory:/m", "-v", "elsewhere:/e", "busybox", "sh", "-c", script)
    assert out == "1000\n1024"
    assert (tmp_path / "made").exists()
    assert engine.ok("exec", "one", "ls", "/m") == "shared"
    engine.ok("rm", "-f", "one")
    assert run(engine, "-v", "memory:/m", "busybox", "ls", "/m") == ""
    engine.ok(
        "volume", "create", "-o", "type=none", "-o", "device=/not/there", "-o", "o=bind", "no"
    )
    refused = engine("run", "--rm", "-v", "no:/x", "busybox", "true")
    assert refused.status
    assert "failed to mount local volume: mount /not/there:" in refused.err
    assert "no.source" not in refused.err
    options = ("type=nfs", "device=:/export", "o=addr=nowhere.invalid,ro")
    engine.ok("volume", "create", *(f"-o={one}" for one in options), "far")
    refused = engine("run", "--rm", "-v", "far:/x", "busybox", "true")
    assert "error resolving passed in network volume address: " in refused.err
    assert "nowhere.invalid" in refused.err
    assert "Errno" not in refused.err


@pytest.mark.usefixtures("clean")
def test_the_commands(engine: Engine) -> None:
    assert engine.ok("volume", "create", "--label", "a=b", "v10") == "v10"
    assert engine.ok("volume", "create", "v10") == "v10"
    engine.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "v9")
    assert engine.ok("volume", "ls").splitlines() == [
        "DRIVER    VOLUME NAME", "local     v9", "local     v10",
    ]  # fmt: skip
    template = '{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}} {{.Label "a"}}'
    assert engine.ok("volume", "ls", "--format", template).splitlines() == [
        "v9 local local  ", "v10 local local a=b b",
    ]  # fmt: skip
    assert engine.ok("volume", "ls", "--format", "table {{.Name}}\t{{.Labels}}").splitlines() == [
        "VOLUME NAME   LABELS", "v9            ", "v10           a=b",
    ]  # fmt: skip
    assert (
        json.loads(engine.ok("volume", "ls", "--format", "json").splitlines()[1])["Name"] == "v10"
    )
    for words, names in (
        (["name=v1"], ["v10"]),
        (["label=a"], ["v10"]),
        (["label=a=c"], []),
        (["driver=local"], ["v9", "v10"]),
        (["dangling=false"], []),
        (["name=v9", "name=v10"], ["v9", "v10"]),
    ):
        filters = [word for text in words for word in ("--filter", text)]
        assert engine.ok("volume", "ls", "-q", *filters).split() == names
    (shown,) = json.loads(engine.ok("volume", "inspect", "v9"))
    assert list(shown) == [
        "CreatedAt",
        "Driver",
        "Labels",
        "Mountpoint",
        "Name",
        "Options",
        "Scope",
    ]
    assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs"}
    assert pathlib.Path(shown["Mountpoint"]).parts[-3:] == ("volumes", "v9", "_data")
    result = engine("volume", "inspect", "-f", "{{.Name}}", "v10", "nope")
    assert (result.status, result.out) == (1, "v10\n")
    assert "get nope: no such volume" in result.err
    user = engine.ok("create", "-v", "v10:/x", "busybox", "true")
    result = engine("volume", "rm", "v10", "nope", "v9")
    assert (result.status, result.out) == (1, "v9\n")
    assert f"remove v10: volume is in use - [{user}]" in result.err
    assert engine.ok("volume", "rm", "-f", "nope") == "nope"
    engine.ok("rm", user)
    assert engine.ok("volume", "rm", "v10") == "v10"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("create x", "volume name is too short"),
        ("create a/b", '"a/b" includes invalid characters for a local volume name'),
        ("create -o type=tmpfs v1", 'create v1: missing required option: "device"'),
        ("create -o device=tmpfs v1", 'create v1: missing required option: "type"'),
        ("create -o foo=bar v1", 'create v1: invalid option: "foo"'),
        ("create -o size=1m v1", "create v1: quota size requested but no quota support"),
        ("create --name a1 a2", "cannot specify a volume-name through both --name and as a"),
        ("ls --filter dangling=x", "nvalid filter 'dangling=[x]'"),
        ("ls --filter foo=x", "nvalid filter 'foo'"),
        ("rm nope", "get nope: no such volume"),
    ],
)
def test_refusals(engine: Engine, words: str, reason: str) -> None:
    result = engine("volume", *words.split())
    assert result.status == 1
    assert reason in result.err


@pytest.mark.usefixtures("clean")
@pytest.mark.ketch_only("Debian's dockerd has neither subpaths nor images as mounts")
@pytest.mark.vm
def test_parts_of_volumes_and_images(engine: Engine) -> None:
    script = "mkdir -p /v/a/b && echo in > /v/a/b/f && ln -s /etc /v/out && ln -s a/b /v/in"
    run(engine, "-v", "parts:/v", "busybox", "sh", "-c", script)

    def part(subpath: str) -> list[str]:
        return ["--mount", f"type=volume,src=parts,dst=/x,volume-subpath={subpath}"]

    assert run(engine, *part("a/b"), "busybox", "sh", "-c", "cat /x/f; touch /x/new") == "in"
    assert run(engine, *part("in/new"), "busybox", "stat", "-c", "%F", "/x") == "regular empty file"
    for subpath, reason in (
        ("out/passwd", "invalid cross-device link"),
        ("gone", "no such file or directory"),
        ("../x", "subpath must be a relative path within the volume"),
    ):
        refused = engine("run", "--rm", "--network", "none", *part(subpath), "busybox", "true")
        assert refused.status == 125
        assert reason in refused.err.lower()
    image = "type=image,src=busybox,dst=/i"
    out = run(engine, "--mount", image, "busybox", "sh", "-c", "echo mine > /i/new; cat /i/new")
    assert out == "mine"
    assert "new" not in run(engine, "--mount", image, "busybox", "ls", "/i").split()
    part_of_image = f"{image},image-subpath=bin,readonly"
    script = "test -x /i/sh && ! touch /i/x 2>&1"
    out = run(engine, "--mount", part_of_image, "busybox", "sh", "-c", script)
    assert "Read-only file system" in out


@pytest.mark.root_engine("the kernel lets nobody else map ids in mounts")
@pytest.mark.ketch_only("docker maps no ids of mounts")
def test_files_made_through_an_id_mapped_mount_belong_to_its_owner(
    engine: Engine, tmp_path: pathlib.Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1000, 1001)
    mount = f"type=bind,src={theirs},dst=/x,idmap"
    script = "touch /x/made; stat -c '%u:%g' /x /x/made"
    assert run(engine, "--mount", mount, "busybox", "sh", "-c", script) == "0:0\n0:0"
    made = (theirs / "made").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1001)
    # Who has the owner's own number inside could else write root's files.
    refused = engine("run", "--rm", "--network", "none", "--mount", mount, "busybox", "sh", "-c",
                     "chmod 777 /x; chown 1000:1001 /x/made")  # fmt: skip
    assert refused.status == 1
    for word in ("", "@"):  # podman's, by crun
        ranges = f"uids={word}1000-5-1;gids={word}1001-6-1"
        exact = f"type=bind,src={theirs},dst=/x,idmap={ranges}"
        assert run(engine, "--mount", exact, "busybox", "stat", "-c", "%u:%g", "/x") == "5:6"


@pytest.mark.user
@pytest.mark.many_ids("there is no other user to give it to")
@pytest.mark.usefixtures("clean")
@pytest.mark.ketch_only("podman's")
def test_what_is_mounted_is_given_to_the_containers_user(
    engine: Engine, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").touch()
    (tmp_path / "link").symlink_to("/etc")
    owners = ("stat", "-c", "%u:%g")
    for word in ("U", "U=true", "chown=1"):
        for mount, places in (
            (f"type=bind,src={tmp_path}", ("/m", "/m/below/file")),
            ("type=volume,src=given", ("/m",)),
            ("type=tmpfs", ("/m",)),
        ):
            told = run(engine, "-u", "7:8", "--mount", f"{mount},dst=/m,{word}", "busybox",
                       *owners, *places)  # fmt: skip
            assert told.split() == ["7:8"] * len(places)
        run(engine, "--mount", f"type=bind,src={tmp_path},dst=/m,U", "busybox", *owners, "/m")
    assert (tmp_path / "below" / "file").stat().st_uid == engine.outside(0)
    mount = f"type=bind,src={tmp_path},dst=/m,U=false"
    assert run(engine, "-u", "7:8", "--mount", mount, "busybox", *owners, "/m") == "0:0"
    # Of a volume, the part that is mounted alone.
    run(engine, "-v", "whole:/v", "busybox", "mkdir", "-p", "/v/part/inner", "/v/other")
    part = "type=volume,src=whole,dst=/m,volume-subpath=part,U"
    told = run(engine, "-u", "9", "--mount", part, "busybox", *owners, "/m/inner")
    assert told == "9:0"
    told = run(engine, "-v", "whole:/v", "busybox", *owners, "/v", "/v/other", "/v/part")
    assert told.split() == ["0:0", "0:0", "9:0"]
    # Who takes it over takes it as it is.
    engine.ok("create", "--name", "donor", "-u", "9", "--mount", part, "busybox", "true")
    told = run(engine, "-u", "4", "--volumes-from", "donor", "busybox", *owners, "/m")
    assert told == "9:0"
    refused = engine("run", "--rm", "--mount", "type=image,src=busybox,dst=/m,U", "busybox", "true")
    assert (refused.status, "cannot use 'U' with mount type 'image'" in refused.err) == (125, True)
    refused = engine("run", "--rm", "--mount", "type=bind,src=/usr,dst=/m,U", "busybox", "true")
    assert 'chowning host path "/usr" is not allowed' in refused.err


@pytest.mark.usefixtures("clean")
@pytest.mark.ketch_only("a docker with a limit of its own on descriptors would be another daemon")
def test_trees_deeper_than_recursion_and_descriptors_go(
    engine: Engine, tmp_path: pathlib.Path
) -> None:
    """A volume is filled, measured and removed however deep its directories are."""
    packed = tmp_path / "deep.tar"
    packed.write_bytes(images.busybox_archive().read_bytes())
    with tarfile.open(packed, "a") as tar:
        file = tarfile.TarInfo("/".join(["ddd"] * 500 + ["file"]))
        file.size = 3
        tar.addfile(file, io.BytesIO(b"abc"))
    engine.ok("import", str(packed), "deep")
    limited = Engine(engine.name, ["sh", "-c", 'ulimit -n 200; exec "$0" "$@"', *engine.prefix])
    script = "i=0; while [ $i -lt 500 ]; do cd ddd || exit; i=$((i+1)); done; cat file"
    assert run(limited, "-v", "filled:/ddd", "deep", "sh", "-c", script) == "abc"
    mountpoint = engine.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "filled")
    # Deeper still: no path leads there.
    script = "i=0; while [ $i -lt 1500 ]; do mkdir below; cd below; i=$((i+1)); done; echo x >file"
    run(engine, "-v", "filled:/v", "-w", "/v", "busybox", "sh", "-c", script)
    assert os.path.isdir(f"{mountpoint}/below/below")
    rows = [line.split() for line in limited.ok("system", "df", "-v").splitlines()]
    assert ["filled", "0", "5B"] in rows
    pruned = limited.ok("volume", "prune", "-af")
    assert "filled" in pruned
    assert not os.path.exists(mountpoint)
    engine.ok("rmi", "deep")


@pytest.mark.usefixtures("clean")
@pytest.mark.ketch_only("Debian's dockerd has neither subpaths nor images as mounts")
def test_copies_at_rest_see_what_a_start_mounts(engine: Engine, tmp_path: pathlib.Path) -> None:
    """``cp`` of a container that does not run: parts of volumes, images, options of the driver."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "file").write_text("in the directory")
    script = "mkdir -p /v/a/b; echo part >/v/a/b/file; echo whole >/v/file"
    run(engine, "-v", "parts:/v", "busybox", "sh", "-c", script)
    options = ["-o", "type=none", "-o", "o=bind", "-o", f"device={here}"]
    engine.ok("volume", "create", *options, "bound")
    engine.ok("create", "--name", "box",
              "--mount", "type=volume,src=parts,dst=/part,volume-subpath=a/b",
              "--mount", "type=image,src=busybox,dst=/image",
              "--mount", "type=image,src=busybox,dst=/bin2,image-subpath=bin",
              "-v", "bound:/bound", "busybox", "true")  # fmt: skip

    def content(path: str) -> str:
        with tarfile.open(fileobj=io.BytesIO(cat(path))) as archive:
            members = archive.getmembers()
            file = archive.extractfile(members[0])
            return file.read().decode() if file else " ".join(m.name for m in members)

    def cat(path: str) -> bytes:
        return engine.ok("cp", f"box:{path}", "-").encode(errors="surrogateescape")

    assert content("/part/file") == "part\n"
    assert content("/part").split() == ["part", "part/file"]
    assert content("/bound/file") == "in the directory"
    assert "image/bin/busybox" in content("/image").split()
    assert "bin2/busybox" in content("/bin2").split()
    (tmp_path / "new").write_text("new")
    for place in ("part", "bound", "image"):
        engine.ok("cp", f"{tmp_path}/new", f"box:/{place}/new")
    assert run(engine, "-v", "parts:/v", "busybox", "cat", "/v/a/b/new") == "new"
    assert (here / "new").read_text() == "new"
    assert content("/image/new") == "new"
    assert not os.path.ismount(engine.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "bound"))
    # A part that is not there is missed as by a start.
    run(engine, "-v", "parts:/v", "busybox", "sh", "-c", "rm -r /v/a; ln -s /etc /v/a")
    refused = engine("cp", "box:/part/file", "-")
    assert refused.status == 1
    assert "cannot access path a/b" in refused.err


@pytest.mark.usefixtures("clean")
@pytest.mark.ketch_only("Debian's dockerd has no subpaths")
@pytest.mark.many_ids("programs see all files as root's")
def test_a_part_of_a_volume_is_filled_like_a_whole_one(engine: Engine, image: str) -> None:
    script = "cd /v; mkdir new used nocopy; touch used/mine file; ln -s /etc out"
    run(engine, "-v", "parts:/v", "busybox", "sh", "-c", script)

    def shown(subpath: str, options: str = "") -> list[str]:
        mounted = f"type=volume,src=parts,dst=/data,volume-subpath={subpath}{options}"
        return run(engine, "--mount", mounted, image, "ls", "/data").split()

    assert shown("new") == ["again", "below", "fifo", "file", "link"]
    assert shown("used") == ["mine"]
    assert shown("nocopy", ",volume-nocopy") == []
    script = "stat -c %a:%u /v/new/file /v/new; ls /v/new/below; ls -d /v/again 2>/dev/null; true"
    text = run(engine, "-v", "parts:/v", "busybox", "sh", "-c", script)
    assert text.split() == ["4711:1000", "2750:1000", "empty"]
    out = "type=volume,src=parts,dst=/data,volume-subpath=out"
    assert engine("run", "--rm", "--network", "none", "--mount", out, image).status == 125


@pytest.mark.usefixtures("clean")
@pytest.mark.ketch_only("where docker mounts its volumes is the daemon's own")
def test_a_volume_with_options_is_mounted_while_anybody_has_it(engine: Engine) -> None:
    """The end of one container takes nothing away from another, however it ends."""
    engine.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    place = engine.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "memory")

    def is_mounted() -> bool:
        look = "import os, sys; print(os.path.ismount(sys.argv[1]))"
        told = subprocess.run([*engine.python, "-c", look, place], check=True, capture_output=True)
        return told.stdout == b"True\n"

    def start(name: str) -> None:
        engine.ok("run", "-d", "--name", name, "--network", "none", "-v", "memory:/m",
                  "busybox", "sleep", "1000")  # fmt: skip

    start("first")
    engine.ok("exec", "first", "sh", "-c", "echo here >/m/file")
    for name, end in (("stopped", ["stop", "-t", "0"]), ("removed", ["rm", "-f"])):
        start(name)
        engine.ok(*end, name)
        assert is_mounted(), end
        assert engine.ok("exec", "first", "cat", "/m/file") == "here"
        start(f"after-{name}")
        assert engine.ok("exec", f"after-{name}", "cat", "/m/file") == "here"
        engine.ok("rm", "-f", f"after-{name}")
    refused = engine("volume", "rm", "memory")
    assert refused.status == 1
    assert is_mounted()
    engine.ok("stop", "-t", "0", "first")
    assert not is_mounted()
    engine.ok("start", "first")
    assert engine("exec", "first", "cat", "/m/file").status == 1  # a new file system
    engine.ok("rm", "-f", "first", "stopped")
    assert not is_mounted()
