"""Images to and from other programs: docker, podman, skopeo and umoci, in every form they share."""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import layouts, peers
from tests.support.archives import archive, member
from tests.support.commands import Engine


def run(*command: str | pathlib.Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def layers(engine: Engine, image: str) -> tuple[str, list[str]]:
    """Return an image's ID and the digests of its layers' content, as an engine tells them."""
    [document] = json.loads(engine.ok("image", "inspect", image))
    return document["Id"].removeprefix("sha256:"), document["RootFS"]["Layers"]


def need(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    try:
        with peers.podman(tmp_path_factory.mktemp("podman")) as engine:
            yield engine
    except peers.PeerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def two_layers(ketch_engine: Engine, docker_engine: Engine) -> Iterator[str]:
    """Return the name of an image that docker made and ketch loaded: two layers, a whiteout."""
    docker_engine.ok("rm", "-f", "exchange")
    script = "rm /bin/wget; mkdir /d; echo x >/d/f; ln /d/f /d/g; ln -s f /d/s"
    docker_engine.ok("run", "--name", "exchange", "busybox", "sh", "-c", script)
    docker_engine.ok("commit", "-c", "CMD cat /d/g", "-c", "LABEL a=b", "exchange", "exchange:1")
    docker_engine.ok("rm", "exchange")
    saved = subprocess.Popen([*docker_engine.prefix, "save", "exchange:1"], stdout=subprocess.PIPE)
    loaded = ketch_engine.ok("load", stdin=saved.stdout)
    assert saved.wait() == 0
    assert loaded == "Loaded image: exchange:1"
    yield "exchange:1"
    docker_engine.ok("rmi", "exchange:1")
    ketch_engine.ok("rmi", "exchange:1")


def test_docker_reads_what_ketch_read_from_docker(
    ketch: Engine, docker_engine: Engine, two_layers: str, tmp_path: pathlib.Path
) -> None:
    before = layers(docker_engine, two_layers)
    assert layers(ketch, two_layers) == before
    assert ketch.ok("run", "--rm", two_layers) == "x"
    assert ketch("run", "--rm", two_layers, "ls", "/bin/wget", "/d/s").out == "/d/s\n"
    docker_engine.ok("rmi", two_layers)
    ketch.ok("save", "-o", str(tmp_path / "a.tar"), two_layers)
    assert two_layers in docker_engine.ok("load", "-i", str(tmp_path / "a.tar"))
    assert layers(docker_engine, two_layers) == before
    assert docker_engine.ok("run", "--rm", two_layers) == "x"


def test_what_was_committed_on_what_travels_along(
    ketch: Engine, docker_engine: Engine, tmp_path: pathlib.Path
) -> None:
    docker_engine.ok("create", "--name", "family", "busybox", "first")
    docker_engine.ok("commit", "family", "family:1")
    docker_engine.ok("rm", "family")
    docker_engine.ok("create", "--name", "family", "family:1", "second")
    docker_engine.ok("commit", "-m", "second", "family", "family:2")
    docker_engine.ok("rm", "family")
    engines = [docker_engine, ketch]
    try:
        for source, target in zip(engines, reversed(engines), strict=True):
            file = str(tmp_path / f"{source.name}.tar")
            source.ok("save", "-o", file, "family:2", "family:1")
            target("rmi", "family:2", "family:1")
            target.ok("load", "-i", file)
            for words in (["history", "-q", "--no-trunc", "family:2"],
                          ["image", "inspect", "-f", "{{.Parent}}", "family:2"],
                          ["images", "-q", "family:1"]):  # fmt: skip
                # Of busybox below, docker may know more.
                assert ketch.ok(*words).split()[:2] == docker_engine.ok(*words).split()[:2]
        # Without the other there is nothing to refer to.
        ketch.ok("save", "-o", file, "family:2")
        ketch.ok("rmi", "family:2")
        ketch.ok("load", "-i", file)
        assert ketch.ok("image", "inspect", "-f", "{{.Parent}}", "family:2") == ""
    finally:
        for engine in engines:
            engine("rmi", "family:2", "family:1")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_and_ketch_read_each_other(
    ketch: Engine, podman: Engine, two_layers: str, tmp_path: pathlib.Path, form: str
) -> None:
    archive = str(tmp_path / "a.tar")
    before = layers(ketch, two_layers)
    ketch.ok("save", "--format", form, "-o", archive, two_layers)
    loaded = podman.ok("load", "-i", archive)
    name = loaded.rpartition(": ")[2]
    assert layers(podman, name)[1] == before[1]
    back = str(tmp_path / "b.tar")
    podman.ok("save", "--format", form, "-o", back, name)
    podman.ok("rmi", "-f", name)
    loaded = ketch.ok("load", "-i", back).partition(": ")[2]
    assert layers(ketch, loaded)[1] == before[1]
    if loaded != two_layers:
        ketch.ok("rmi", loaded)
    ketch.ok("image", "prune", "-f")


def test_skopeo_copies_from_and_to_all_forms(
    ketch: Engine, two_layers: str, tmp_path: pathlib.Path
) -> None:
    need("skopeo")
    archive, directory = tmp_path / "a.tar", tmp_path / "dir"
    before = layers(ketch, two_layers)
    ketch.ok("save", "-o", str(archive), two_layers)
    ketch.ok("save", "--format", "oci-dir", "-o", str(directory), two_layers)
    sources = [f"docker-archive:{archive}:{two_layers}", f"oci-archive:{archive}:1",
               f"oci:{directory}:1", f"oci:{ketch.prefix[2]}:{two_layers}"]  # fmt: skip
    for source in sources:
        told: dict[str, Any] = json.loads(run("skopeo", "inspect", "--config", source))
        assert told["rootfs"]["diff_ids"] == before[1], source
    for number, form in enumerate(["docker-archive", "oci-archive", "oci"]):
        target = tmp_path / f"target-{number}"
        run("skopeo", "copy", "-q", sources[0], f"{form}:{target}:other/name:{number}")
        assert ketch.ok("load", "-i", str(target)) == f"Loaded image: other/name:{number}"
        assert layers(ketch, f"other/name:{number}")[1] == before[1]
        ketch.ok("rmi", f"other/name:{number}")


def test_a_directory_on_another_file_system_is_filled(ketch: Engine, two_layers: str) -> None:
    before = layers(ketch, two_layers)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        ketch.ok("save", "--format", "oci-dir", "-o", directory, two_layers)
        ketch.ok("rmi", two_layers)
        assert ketch.ok("load", "-i", directory) == f"Loaded image: {two_layers}"
    assert layers(ketch, two_layers) == before


def test_links_in_a_directory_that_is_filled_lead_nowhere(
    ketch: Engine, two_layers: str, tmp_path: pathlib.Path
) -> None:
    directory, other = tmp_path / "layout", tmp_path / "other"
    directory.mkdir()
    other.write_text("mine")
    (directory / "index.json").symlink_to(other)
    words = ("save", "--format", "oci-dir", "-o", str(directory), two_layers)
    ketch.ok(*words)
    assert other.read_text() == "mine"
    assert not (directory / "index.json").is_symlink()
    assert json.loads((directory / "index.json").read_text())["manifests"]
    (directory / "blobs").rename(tmp_path / "blobs")
    (directory / "blobs").symlink_to(tmp_path / "blobs")
    refused = ketch(*words)
    assert refused.status == 1
    assert "blobs in it: not a directory" in refused.err


def test_umoci_unpacks_the_store_and_what_was_saved_and_changes_it(
    ketch: Engine, two_layers: str, tmp_path: pathlib.Path
) -> None:
    need("umoci")
    directory = tmp_path / "dir"
    ketch.ok("save", "--format", "oci-dir", "-o", str(directory), two_layers)
    run("umoci", "unpack", "--image", f"{directory}:1", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "d" / "g").read_text() == "x\n"
    assert not (root / "bin" / "wget").exists()
    (root / "d" / "new").write_text("new\n")
    run("umoci", "repack", "--image", f"{directory}:2", tmp_path / "bundle")
    loaded = ketch.ok("load", "-i", str(directory)).splitlines()
    assert loaded == [f"Loaded image: {two_layers}", "Loaded image: exchange:2"]
    assert ketch.ok("run", "--rm", "exchange:2", "cat", "/d/new", "/d/f") == "new\nx"
    ketch.ok("rmi", "exchange:2")


def test_all_that_is_written_fits_the_specifications_schemas(
    scratch: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    # Its own store, which is a layout as well: what docker wrote has null where arrays belong.
    root = scratch / "schemas"
    program = str(pathlib.Path(sys.executable).with_name("ketch"))
    ketch = Engine("ketch", [program, "--no-zygote", "--root", str(root),
                             "--state", f"{root}-state"])  # fmt: skip
    changes = [
        'CMD ["a"]', "ENTRYPOINT b c", "ENV d=e", "EXPOSE 80/udp", "LABEL g=h", "ONBUILD RUN i",
        "HEALTHCHECK --retries=3 CMD f", "STOPSIGNAL 9", "USER 1:2", "VOLUME /j", "WORKDIR /k",
    ]  # fmt: skip
    words = [f"--change={change}" for change in changes]
    content = gzip.compress(archive(member(b"file", data=b"content")))
    ketch.ok("import", *words, "-m", "a \u00fc", "-", "schemas:1", stdin=content)
    ketch.ok("import", "--platform", "linux/arm/v7", "-", "schemas:2",
             stdin=archive(member(b"file")))  # fmt: skip
    ketch.ok("create", "--name", "schemas", "schemas:1", "command")
    ketch.ok("commit", "-a", "me", *words, "schemas", "schemas:3")  # without a layer of its own
    ketch.ok("cp", str(pathlib.Path(__file__)), "schemas:/file")
    ketch.ok("commit", "schemas")
    ketch.ok("rm", "schemas")
    assert len(set(layouts.check(root))) == 4

    made = ["schemas:1", "schemas:2", "schemas:3"]
    ketch.ok("tag", "schemas:1", "host.test:5000/other/name:tag")
    for form in ("oci-dir", "oci-archive", "docker-archive"):
        directory, file = tmp_path / form, tmp_path / f"{form}.tar"
        target = directory if form == "oci-dir" else file
        ketch.ok("save", "--format", form, "-o", str(target), *made, "host.test:5000/other/name")
        if target == file:
            directory.mkdir()
            run("tar", "-xf", file, "-C", directory)
        assert len(set(layouts.check(directory))) == len(made)
