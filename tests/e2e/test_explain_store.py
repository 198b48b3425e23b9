"""``--explain`` of what changes records, mounts roots, and sends or removes what is kept.

As beside the other commands, what is told is held against what there is, and the script that is
written has to come to the same.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import DIRECTORY, archive, member
from tests.support.commands import Engine
from tests.support.registry import fake, require_token
from tests.support.told import run_script, steps, values_of

pytestmark = pytest.mark.root_engine("scripts do the same by hand, on the host")

NO_COMMANDS = "There are no commands with which a person does this"


@pytest.fixture
def image(ketch: Engine, tmp_path: Path, run_name: str) -> "Iterator[str]":
    """An image of one layer that no other has, by its name."""
    content = archive(
        member(b"etc/", DIRECTORY, mode=0o755), member(b"etc/name", data=run_name.encode())
    )
    (tmp_path / "root.tar").write_bytes(content)
    ketch.ok("import", "-c", "CMD x", str(tmp_path / "root.tar"), f"{run_name}:v1")
    yield f"{run_name}:v1"
    ketch("rmi", "-f", f"{run_name}:v1")


def _paths(ketch: Engine, image: str) -> list[Path]:
    """Where an image's blobs and its one layer are."""
    shown = json.loads(ketch.ok("image", "inspect", image))[0]
    layer = Path(shown["GraphDriver"]["Data"]["UpperDir"]).parent
    blobs = layer.parents[2] / "blobs" / "sha256"
    digests = [shown["Id"], *shown["RootFS"]["Layers"]]
    return [layer, *(blobs / digest.partition(":")[2] for digest in digests)]


# Records alone


def test_tag_tells_the_name_and_who_had_it(ketch: Engine, image: str, run_name: str) -> None:
    other = ketch.ok("images", "-q", "--no-trunc", "busybox").split()[0]
    ketch.ok("tag", "busybox", f"{run_name}:other")
    try:
        done = ketch("tag", "--explain=json", image, f"{run_name}:other")
        assert values_of(done.err, "record a name of the image") == {
            "id": [ketch.ok("images", "-q", "--no-trunc", image)],
            "name": [f"{run_name}:other"],
            "taken-from": [other],
        }
        again = ketch("tag", "--explain=json", image, f"{run_name}:other")
        assert "taken-from" not in again.err
        assert NO_COMMANDS in ketch("tag", "--explain=commands", image, f"{run_name}:other").err
    finally:
        ketch("rmi", f"{run_name}:other")


def test_rename_tells_both_names(ketch: Engine, run_name: str) -> None:
    container = ketch.ok("create", "--name", run_name, "busybox", "true")
    try:
        done = ketch("rename", "--explain=json", run_name, f"{run_name}-2")
        assert values_of(done.err, f"record that container {run_name} is called") == {
            "container": [container], "old-name": [run_name], "name": [f"{run_name}-2"],
        }  # fmt: skip
    finally:
        ketch("rm", container)


# Removing


def test_rmi_tells_what_goes_and_by_hand_the_files_go(
    ketch: Engine, image: str, tmp_path: Path
) -> None:
    saved = str(tmp_path / "saved.tar")
    ketch.ok("save", "-o", saved, image)
    paths = _paths(ketch, image)
    identifier = ketch.ok("images", "-q", "--no-trunc", image)
    done = ketch("rmi", "--explain=json", image)
    told = values_of(done.err, "take names and images out of the records")
    assert told == {"untagged": [image], "deleted": [identifier]}
    gone = values_of(done.err, "delete what nobody needs any more")
    assert {*map(str, paths)} <= {*gone["layer"], *gone["blob"]}
    assert not [path for path in paths if path.exists()]
    ketch.ok("load", "-i", saved)
    script = ketch("rmi", "--explain=commands", image).err
    ketch.ok("load", "-i", saved)
    assert all(path.exists() for path in paths)
    by_hand = run_script(script)
    assert by_hand.returncode == 0, by_hand.stderr
    assert not [path for path in paths if path.exists()]


def test_an_untagging_deletes_nothing(ketch: Engine, image: str, run_name: str) -> None:
    ketch.ok("tag", image, f"{run_name}:more")
    done = ketch("rmi", "--explain=json", f"{run_name}:more")
    assert values_of(done.err, "take names")["untagged"] == [f"{run_name}:more"]
    assert str(_paths(ketch, image)[0]) not in done.err


def test_image_prune_tells_the_same(ketch: Engine, image: str) -> None:
    layer = str(_paths(ketch, image)[0])
    label = f"label=of={image}"
    container = ketch.ok("create", image)
    ketch.ok("commit", "-c", f"LABEL of={image}", container, image)
    labelled = ketch.ok("images", "-q", "--no-trunc", image)
    ketch.ok("rm", container)
    done = ketch("image", "prune", "-af", "--explain=json", "--filter", label)
    assert labelled in values_of(done.err, "take names")["deleted"]
    assert layer in values_of(done.err, "delete what nobody needs")["layer"]


def test_prunes_tell_what_goes(ketch: Engine, run_name: str) -> None:
    label = f"of={run_name}"
    container = ketch.ok("create", "--label", label, "busybox", "true")
    done = ketch("container", "prune", "-f", "--explain=json", "--filter", f"label={label}")
    (removed,) = [said for said, _ in steps(done.err) if said.startswith("remove the container")]
    assert container in removed
    ketch.ok("volume", "create", "--label", label, run_name)
    done = ketch("volume", "prune", "-af", "--explain=json", "--filter", f"label={label}")
    assert values_of(done.err, f"remove volume {run_name}")["name"] == [run_name]
    network = ketch.ok("network", "create", "--label", label, run_name)
    done = ketch("network", "prune", "-f", "--explain=json", "--filter", f"label={label}")
    assert values_of(done.err, f"remove the record of network {run_name}")["id"] == [network]
    ketch.ok("create", "--label", label, "--name", run_name, "busybox", "true")
    done = ketch("system", "prune", "-f", "--explain", "--filter", f"label={label}")
    assert "remove the container and " in done.err
    assert "Deleted Containers:" in done.out
    nothing = ketch("network", "prune", "-f", "--explain=commands", "--filter", f"label={label}")
    assert "# Nothing was done." in nothing.err


def test_builder_prune_tells_what_is_forgotten(
    ketch: Engine, tmp_path: Path, run_name: str
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo {run_name} > /made\n")
    ketch.ok("build", "-q", "-t", run_name, str(tmp_path))
    layer = json.loads(ketch.ok("image", "inspect", run_name))[0]["GraphDriver"]["Data"]["UpperDir"]
    ketch.ok("rmi", run_name)
    lines = ketch.ok("builder", "du").splitlines()
    listed = {line.split()[0].rstrip("*") for line in lines if line}  # a star: it is mutable
    done = ketch("builder", "prune", "-af", "--explain=json")
    told = values_of(done.err, "forget what builds have kept")
    assert set(told) <= listed
    assert any(f"RUN echo {run_name}" in text for texts in told.values() for text in texts)
    gone = values_of(done.err, "delete what nobody needs any more")
    assert os.path.dirname(layer) in gone["layer"]
    assert not os.path.exists(layer)


# Mounting


@pytest.fixture
def written(ketch: Engine) -> "Iterator[str]":
    container = ketch.ok("create", "busybox", "sh", "-c", "echo word > /written")
    ketch.ok("start", "-a", container)
    yield container
    ketch("umount", "-f", container)
    ketch("rm", "-f", container)


def _is_mounted(path: str) -> bool:
    return subprocess.run(["mountpoint", "-q", path], check=False).returncode == 0


def test_mount_tells_trees_and_place_and_works_by_hand(ketch: Engine, written: str) -> None:
    done = ketch("mount", "--explain=json", written)
    place = done.out.strip()
    driver = json.loads(ketch.ok("inspect", written))[0]["GraphDriver"]["Data"]
    stacked = values_of(done.err, "stack a writable layer")
    assert stacked["upperdir"] == [driver["UpperDir"]]
    assert values_of(done.err, f"record how often {place} is wanted")["times"] == ["1"]
    again = ketch("mount", "--explain=json", written)
    assert values_of(again.err, "record how often")["times"] == ["2"]
    assert "stack a writable layer" not in again.err
    less = ketch("umount", "--explain=json", written)
    assert [said for said, _ in steps(less.err)] == [f"record how often {place} is wanted"]
    last = ketch("umount", "--explain=commands", written).err
    mounting = ketch("mount", "--explain=commands", written).err
    ketch.ok("umount", written)
    assert not _is_mounted(place)
    by_hand = run_script(mounting)
    assert by_hand.returncode == 0, by_hand.stderr
    try:
        assert Path(place, "written").read_text() == "word\n"
        assert not _is_mounted(f"{os.path.dirname(place)}/rootfs")
    finally:
        by_hand = run_script(last)
    assert by_hand.returncode == 0, by_hand.stderr
    assert not _is_mounted(place)


def test_a_running_ones_mount_is_a_copy_and_has_no_command(ketch: Engine) -> None:
    container = ketch.ok("run", "-d", "busybox", "sleep", "1000")
    try:
        pid = ketch.ok("inspect", "-f", "{{.State.Pid}}", container)
        done = ketch("mount", "--explain=json", container)
        told = values_of(done.err, "take a copy of the root mount")
        assert told == {"root": [f"/proc/{pid}/root"]}
        assert "stack a writable layer" not in done.err
        ketch.ok("umount", container)
    finally:
        ketch("rm", "-f", container)


def test_image_mount_tells_the_layers_and_works_by_hand(ketch: Engine, image: str) -> None:
    place = ""
    try:
        done = ketch("image", "mount", "--explain=json", image)
        place = done.out.strip()
        layer = str(_paths(ketch, image)[0] / "diff")
        told = values_of(done.err, "take the container's own files")
        assert layer in told["lowerdir"][0].split(":")
        ending = ketch("image", "umount", "--explain=commands", image).err
        script = ketch("image", "mount", "--explain=commands", image).err
        assert run_script(ending).returncode == 0
        assert not _is_mounted(place)
        by_hand = run_script(script)
        assert by_hand.returncode == 0, by_hand.stderr
        assert Path(place, "etc/name").read_text() == image.partition(":")[0]
    finally:
        ketch("image", "umount", "-f", image)


# Saving and sending


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_save_tells_blobs_and_by_hand_the_archive_is_the_same(
    ketch: Engine, image: str, tmp_path: Path, form: str
) -> None:
    own, place = tmp_path / "own", tmp_path / "place"
    place.mkdir()
    done = ketch("save", "--explain=json", "--format", form, "-o", str(own), image)
    assert done.status == 0, done.err
    told = values_of(done.err, "write what the image")
    assert told["configuration"] == [ketch.ok("images", "-q", "--no-trunc", image)]
    kept = place / "kept"
    own.rename(kept)
    script = ketch("save", "--explain=commands", "--format", form, "-o", str(own), image).err
    subprocess.run(["rm", "-r", str(own)], check=True)
    by_hand = run_script(script, cwd=place)
    assert by_hand.returncode == 0, by_hand.stderr
    assert _content(own) == _content(kept)
    ketch.ok("rmi", image)
    ketch.ok("load", "-i", str(own))
    assert ketch.ok("images", "-q", "--no-trunc", image) == told["configuration"][0]


def test_a_saved_stream_by_hand_is_a_stream(ketch: Engine, image: str, tmp_path: Path) -> None:
    saving = ketch.start("save", "--explain=commands", image)
    own, script = saving.communicate(timeout=60)
    by_hand = run_script(script.decode(), cwd=tmp_path)
    assert by_hand.returncode == 0, by_hand.stderr
    (tmp_path / "a").write_bytes(own)
    (tmp_path / "b").write_bytes(by_hand.stdout)
    assert _content(tmp_path / "a") == _content(tmp_path / "b")


@pytest.mark.parametrize("token", [False, True], ids=["open", "token"])
def test_push_tells_blobs_and_curl_sends_the_same(
    ketch: Engine, image: str, tmp_path: Path, *, token: bool
) -> None:
    with fake() as registry, fake() as other:
        for one in (registry, other):
            if token:
                require_token(one)
        name = f"{registry.host}/project/app:v1"
        ketch.ok("tag", image, name)
        try:
            done = ketch("push", "--explain=json", name)
            assert done.status == 0, done.err
            sent = [values for said, values in steps(done.err) if said.startswith("have ")]
            assert {one["blob"][0] for one in sent} == set(registry.blobs)
            assert [one["outcome"] for one in sent] == [["it was sent"]] * 2
            told = values_of(done.err, "put the manifest under its tag")
            digest = done.out.split("digest: ")[1].split()[0]
            assert told["manifest"] == [digest]
            again = ketch("push", "--explain=commands", name)
            assert again.status == 0
            script = again.err.replace(registry.host, other.host)
            by_hand = run_script(script, cwd=tmp_path)
            assert by_hand.returncode == 0, (by_hand.stderr, script)
            moved = f"{other.host}/project/app:v1"
            ketch.ok("pull", "-q", moved)
            same = ketch.ok("images", "-q", "--no-trunc", moved)
            assert same == ketch.ok("images", "-q", "--no-trunc", image)
            assert run_script(script, cwd=tmp_path).returncode == 0, "all was there"
            ketch.ok("rmi", moved)
        finally:
            ketch("rmi", name)


def _content(path: Path) -> "dict[str, bytes]":
    """The files of a directory, or of an archive, by name."""
    if path.is_file():
        into = path.with_name(f"{path.name}-unpacked")
        into.mkdir()
        subprocess.run(["tar", "-C", str(into), "-xf", str(path)], check=True)
        path = into
    return {
        str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()
    }
