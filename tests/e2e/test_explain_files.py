"""``--explain`` of what moves files, layers and images: which, where to, and how large.

Beside each command the script that it writes is run, and has to come to the same.
"""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.archives import DIRECTORY, archive, member
from tests.support.commands import Engine
from tests.support.registry import FakeRegistry, fake, require_token
from tests.support.told import run_script, steps, values_of

pytestmark = pytest.mark.root_engine("scripts do the same by hand, on the host")

CHANGES = (
    "mkdir -p /made/deep; echo new > /made/deep/file; echo more >> /etc/passwd; rm /bin/vi;"
    " rm -r /home; mkdir /home; echo back > /home/again; ln -s file /made/link"
)


@pytest.fixture
def changed(ketch: Engine) -> "Iterator[str]":
    """A container that runs and has changed something of each kind."""
    container = ketch.ok("run", "-d", "busybox", "sh", "-c", f"{CHANGES}; sleep 1000")
    while "again" not in ketch("exec", container, "ls", "/home").out:
        pass
    yield container
    ketch("rm", "-f", container)


@pytest.fixture(params=["running", "stopped"])
def either(ketch: Engine, changed: str, request: pytest.FixtureRequest) -> str:
    """The same, running or not."""
    if request.param == "stopped":
        ketch.ok("stop", "-t", "0", changed)
    return changed


# diff, export, cp


def test_diff_tells_trees_counts_and_whiteouts(ketch: Engine, changed: str) -> None:
    done = ketch("diff", "--explain=json", changed)
    kinds = [line[0] for line in done.out.splitlines()]
    told = values_of(done.err, "compare what the container wrote")
    driver = json.loads(ketch.ok("inspect", changed))[0]["GraphDriver"]["Data"]
    assert told["upperdir"] == [driver["UpperDir"]]
    assert [told[name] for name in ("changed", "added", "deleted")] == [
        [str(kinds.count(kind))] for kind in "CAD"
    ]
    gone = [line[2:] for line in done.out.splitlines() if line[0] == "D"]
    assert "/bin/vi" in gone
    assert told["whiteout"] == gone
    for path in gone:
        if not path.startswith("/home/"):
            status = os.lstat(driver["UpperDir"] + path)
            assert (status.st_mode & 0o170000, status.st_rdev) == (0o020000, 0)
    assert told.get("opaque", []) in (["/home"], []), "busybox may have no /home"


def test_diff_by_hand_finds_the_same(ketch: Engine, changed: str) -> None:
    done = ketch("diff", "--explain=commands", changed)
    found = run_script(done.err)
    assert found.returncode == 0, found.stderr
    hidden = [line for line in done.out.splitlines() if line.startswith("D /home/")]
    assert sorted(found.stdout.decode().splitlines()) == sorted(
        set(done.out.splitlines()) - set(hidden)
    ), "what an opaque directory hides stands in no file of its own"


def test_export_by_hand_has_the_same_members(ketch: Engine, either: str) -> None:
    exported = ketch.start("export", "--explain=commands", either)
    own, script = exported.communicate(timeout=60)
    assert exported.returncode == 0
    by_hand = run_script(script.decode())
    assert by_hand.returncode == 0, by_hand.stderr
    assert _members(by_hand.stdout) == _members(own)
    directory = ketch.ok("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", either)
    assert f"{os.path.dirname(directory)}/rootfs" not in Path("/proc/self/mountinfo").read_text()
    sized = ketch.start("export", "--explain=json", either)
    own, told = sized.communicate(timeout=60)
    assert values_of(told.decode(), "archive all of the container's own files") == {
        "bytes": [str(len(own))]
    }


def test_cp_out_tells_and_does_the_same_by_hand(ketch: Engine, either: str, tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    done = ketch("cp", "--explain=json", f"{either}:/made", str(own))
    told = [values for words, values in steps(done.err) if words.startswith("copy /made of")]
    assert [(one["from"], one["to"], one["owner"]) for one in told] == [
        (["/made"], [str(own)], [f"{os.geteuid()}:{os.getegid()}"])
    ]
    assert int(told[0]["archive-bytes"][0]) > 1024
    script = ketch("cp", "--explain=commands", f"{either}:/made", str(own)).err
    own.rename(other)
    own.mkdir()
    by_hand = run_script(script)
    assert by_hand.returncode == 0, by_hand.stderr
    assert _tree(own) == _tree(other)
    assert "made/deep/file" in _tree(own)


def test_cp_into_tells_and_does_the_same_by_hand(
    ketch: Engine, either: str, tmp_path: Path
) -> None:
    source = tmp_path / "given"
    source.mkdir()
    (source / "file").write_text("given\n")
    os.chown(source / "file", 7, 8)
    done = ketch("cp", "--explain=json", str(source), f"{either}:/etc")
    (told,) = [values for words, values in steps(done.err) if words.startswith("copy /")]
    assert (told["from"], told["to"], told["owner"]) == ([str(source)], ["/etc"], ["kept"])
    script = ketch("cp", "--explain=commands", str(source), f"{either}:/root").err
    by_hand = run_script(
        script.replace("/root/root", "/root/tmp").replace("rootfs/root", "rootfs/tmp")
    )
    assert by_hand.returncode == 0, by_hand.stderr
    places = [_copied_out(ketch, either, path) for path in ("/root/given", "/tmp/given")]
    assert places[0] == places[1]
    assert ("given/file", 7, 8, b"given\n") in places[0]


def test_where_files_are_found_is_told(ketch: Engine, changed: str, tmp_path: Path) -> None:
    pid = ketch.ok("inspect", "-f", "{{.State.Pid}}", changed)
    done = ketch("cp", "--explain", f"{changed}:/etc/passwd", str(tmp_path))
    assert f"  root = /proc/{pid}/root" in done.err
    streamed = ketch("cp", "--explain", f"{changed}:/etc/passwd", "-")
    assert "archive /etc/passwd of container" in streamed.err
    ketch.ok("stop", "-t", "0", changed)
    done = ketch("cp", "--explain", f"{changed}:/etc/passwd", str(tmp_path))
    upper = ketch.ok("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", changed)
    assert f"  upperdir = {upper}" in done.err
    assert f"unmount {os.path.dirname(upper)}/rootfs" in done.err


# commit, load


def test_commit_tells_the_layer_and_the_record(ketch: Engine, changed: str, run_name: str) -> None:
    done = ketch("commit", "--explain=json", changed, run_name)
    try:
        identifier = done.out.strip()
        shown = json.loads(ketch.ok("image", "inspect", run_name))[0]
        layer = values_of(done.err, "store layer 2 and unpack it")
        assert layer["diff-id"] == [shown["RootFS"]["Layers"][-1]]
        assert layer["directory"] == [shown["GraphDriver"]["Data"]["UpperDir"]]
        assert "/bin/vi" in layer["whiteout"]
        record = values_of(done.err, "record the image")
        assert record["id"] == [identifier]
        assert record["name"] == [f"{run_name}:latest"]
        words = [said for said, _ in steps(done.err)]
        assert (
            words.index("hold all processes of the control group")
            < words.index("store layer 2 and unpack it")
            < words.index("let all processes go on")
        )
    finally:
        ketch("rmi", "-f", run_name)


def test_an_image_by_hand_has_what_commit_gives_it(
    ketch: Engine, changed: str, run_name: str, tmp_path: Path
) -> None:
    """The script makes an archive, which loaded is an image with the same files and settings."""
    look = "find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' | sort | xargs ls -ld"
    words = ("commit", "--explain=commands", "-c", "ENV MOOD='it is'", "-c", "LABEL a=b", changed)
    script = ketch(*words, run_name).err
    own = ketch.ok("run", "--rm", "-h", "one", run_name, "sh", "-c", look)
    shown = json.loads(ketch.ok("image", "inspect", run_name))[0]
    ketch.ok("rmi", run_name)
    try:
        done = run_script(script, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        ketch.ok("load", "-i", str(tmp_path / "image.tar"))
        assert ketch.ok("run", "--rm", "-h", "one", run_name, "sh", "-c", look) == own
        again = json.loads(ketch.ok("image", "inspect", run_name))[0]
        assert {**again["Config"]} == {**shown["Config"]}
        assert again["RootFS"]["Layers"][:-1] == shown["RootFS"]["Layers"][:-1]
    finally:
        ketch("rmi", "-f", run_name)


def test_load_tells_layers_and_by_hand_they_are_the_same(
    ketch: Engine, tmp_path: Path, run_name: str
) -> None:
    saved = tmp_path / "saved.tar"
    layers = [
        archive(
            member(b"etc/", DIRECTORY, mode=0o755),
            member(b"etc/one", data=b"1"),
            member(b"two", data=b"2"),
        ),
        archive(member(b"etc/.wh.one", data=b""), member(b"three", data=b"3")),
    ]
    saved.write_bytes(_docker_archive(layers, f"{run_name}:v1"))
    try:
        done = ketch("load", "--explain=json", "-i", str(saved))
        assert done.status == 0, done.err
        identifier = ketch.ok("images", "-q", "--no-trunc", run_name)
        shown = json.loads(ketch.ok("image", "inspect", run_name + ":v1"))[0]
        told = [values_of(done.err, f"store layer {number} and unpack it") for number in (1, 2)]
        assert [one["diff-id"][0] for one in told] == shown["RootFS"]["Layers"]
        assert [one["blob-bytes"][0] for one in told] == [str(len(one)) for one in layers]
        assert told[1]["whiteout"] == ["/etc/one"]
        assert values_of(done.err, "record the image")["id"] == [identifier]
        ketch.ok("rmi", run_name + ":v1")
        script = ketch("load", "--explain=commands", "-i", str(saved)).err
        _check_unpacked(script, tmp_path, told)
        ketch.ok("rmi", run_name + ":v1")
        with saved.open("rb") as stream:
            script = ketch("load", "--explain=commands", stdin=stream).err
        _check_unpacked(script, tmp_path / "again", told, str(saved))
    finally:
        ketch("rmi", "-f", run_name + ":v1")


def test_import_tells_its_layer(ketch: Engine, tmp_path: Path, run_name: str) -> None:
    content = archive(member(b"one", data=b"1" * 5000))
    (tmp_path / "root.tar").write_bytes(content)
    done = ketch("import", "--explain=json", str(tmp_path / "root.tar"), run_name)
    layer = values_of(done.err, "store layer 1 and unpack it")
    assert layer["diff-id"] == layer["blob"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
    assert layer["files-bytes"] == ["5000"]
    assert values_of(done.err, "record the image")["id"] == [done.out.strip()]
    ketch.ok("rmi", run_name)


# pull


@pytest.fixture
def registry() -> "Iterator[FakeRegistry]":
    with fake() as registry:
        registry.add_image(
            "project/app", "v1",
            archive(member(b"etc/", DIRECTORY, mode=0o755), member(b"etc/one", data=b"1" * 3000)),
            archive(member(b"etc/.wh.one", data=b""), member(b"three", data=b"3")),
        )  # fmt: skip
        yield registry


@pytest.mark.parametrize("token", [False, True], ids=["open", "token"])
def test_pull_tells_documents_and_blobs_and_curl_gets_the_same(
    ketch: Engine, registry: FakeRegistry, tmp_path: Path, token: bool
) -> None:
    if token:
        require_token(registry)
    name = f"{registry.host}/project/app:v1"
    done = ketch("pull", "--explain=json", name)
    assert done.status == 0, done.err
    try:
        manifest = json.loads(registry.manifests["project/app", "v1"][1])
        found = values_of(done.err, f"find out which image {name} is")
        assert found["registry"] == [f"http://{registry.host}/v2/project/app/"]
        digest = re.search(r"^Digest: (\S+)$", done.out, re.MULTILINE)
        assert digest is not None
        assert found["manifest"] == [digest[1]]
        config = manifest["config"]
        assert found["configuration"] == [f"{config['digest']}, {config['size']} bytes"]
        shown = json.loads(ketch.ok("image", "inspect", name))[0]
        told = [values_of(done.err, f"fetch layer {number} and unpack it") for number in (1, 2)]
        for one, layer in zip(told, manifest["layers"], strict=True):
            assert one["blob"] == [layer["digest"]]
            assert one["blob-bytes"] == [str(layer["size"])]
        assert [one["diff-id"][0] for one in told] == shown["RootFS"]["Layers"]
        assert told[0]["files-bytes"] == ["3000"]
        assert told[1]["whiteout"] == ["/etc/one"]
        assert values_of(done.err, "record the image")["id"] == [shown["Id"]]
        again = ketch("pull", "--explain", name)
        assert "it is that of the image here · HTTP HEAD" in again.err
        assert "fetch layer" not in again.err
        ketch.ok("rmi", name)
        script = ketch("pull", "--explain=commands", name).err
        _check_unpacked(script, tmp_path, told)
        for one in (*manifest["layers"], config):
            content = (tmp_path / one["digest"].partition(":")[2]).read_bytes()
            assert content == registry.blobs[one["digest"]]
        damaged = manifest["layers"][0]["digest"]
        same = gzip.decompress(registry.blobs[damaged])
        registry.blobs[damaged] = gzip.compress(same, mtime=1)
        other = tmp_path / "damaged"
        other.mkdir()
        assert run_script(script, cwd=other).returncode != 0, "a digest that differs is no layer"
    finally:
        ketch("rmi", "-f", name)


def test_no_password_is_told(ketch: Engine, registry: FakeRegistry, tmp_path: Path) -> None:
    require_token(registry, user="alice")
    ketch = replace(ketch, environment={"DOCKER_CONFIG": str(tmp_path / "docker")})
    ketch.ok("login", "-u", "alice", "--password-stdin", registry.host, stdin="s3cret\n")
    name = f"{registry.host}/project/app:v1"
    try:
        script = ketch("pull", "--explain=commands", name).err
        assert "s3cret" not in script
        assert '-u "$REGISTRY_USER"' in script
        refused = run_script(f"REGISTRY_USER=alice:wrong\n{script}", cwd=tmp_path)
        assert refused.returncode != 0
        given = tmp_path / "given"
        given.mkdir()
        done = run_script(f"REGISTRY_USER=alice:s3cret\n{script}", cwd=given)
        assert done.returncode == 0, done.stderr
    finally:
        ketch("rmi", "-f", name)


def test_a_missing_image_is_told_of_before_its_container(
    ketch: Engine, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/project/app:v1"
    done = ketch("create", "-q", "--explain=json", name, "program")
    try:
        words = [said for said, _ in steps(done.err)]
        assert (
            words.index(f"find out which image {name} is")
            < words.index("fetch layer 2 and unpack it as it arrives")
            < words.index("record the image")
            < words.index("record the container")
        )
    finally:
        ketch("rm", done.out.strip())
        ketch("rmi", "-f", name)


# What the tests need


def _check_unpacked(
    script: str, directory: Path, told: "list[dict[str, list[str]]]", *words: str
) -> None:
    """Run a script, and compare the layers that it unpacks with those that ketch has."""
    directory.mkdir(exist_ok=True)
    done = run_script(script, *words, cwd=directory)
    assert done.returncode == 0, (script, done.stderr)
    for number, one in enumerate(told, 1):
        unpacked = {name for name in _tree(directory / f"layer-{number}") if ".wh." not in name}
        hidden = {path.lstrip("/") for path in one.get("whiteout", ())}
        assert unpacked == set(_tree(Path(one["directory"][0]))) - hidden


def _members(content: bytes) -> "dict[str, tuple[str, int, int, int, str]]":
    """What an archive has, but for the root: kind, mode, owners, and a symlink's target."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for one in tar:
            name = one.name.removeprefix("./").strip("/")
            kind = "file" if one.isreg() or one.islnk() else str(one.type)
            target = one.linkname if one.issym() else ""
            found[name] = (kind, one.mode, one.uid, one.gid, target)
    found.pop(".", None)
    found.pop("", None)
    return found


def _tree(directory: Path) -> "dict[str, tuple[int, int, int, bytes]]":
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        name = str(path.relative_to(directory))
        found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def _copied_out(ketch: Engine, container: str, path: str) -> "list[tuple[str, int, int, bytes]]":
    copied = ketch.start("cp", f"{container}:{path}", "-")
    content, err = copied.communicate(timeout=60)
    assert copied.returncode == 0, err
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [
            (one.name.rstrip("/"), one.uid, one.gid,
             tar.extractfile(one).read() if one.isreg() else b"")  # type: ignore[union-attr]
            for one in tar
        ]  # fmt: skip


def _docker_archive(layers: list[bytes], name: str) -> bytes:
    diff_ids = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }).encode()  # fmt: skip
    names = [f"layer{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    return archive(
        member(b"config.json", data=config),
        member(b"manifest.json", data=json.dumps(manifest).encode()),
        *(member(path.encode(), data=one) for path, one in zip(names, layers, strict=True)),
    )  # fmt: skip
