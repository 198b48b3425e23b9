"""``ketch import``, ``images``, ``tag`` and ``rmi`` as users see them."""

import http.server
import json
import pathlib
import re
import sys
import threading

import pytest

from tests.support.archives import archive, member
from tests.support.commands import Engine

pytestmark = pytest.mark.root

ARCHIVE = archive(member(b"bin/sh", data=b"x" * 1_982_300, mode=0o755))
ID = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture
def ketch(tmp_path: pathlib.Path) -> Engine:
    program = pathlib.Path(sys.executable).with_name("ketch")
    root, state = tmp_path / "root", tmp_path / "state"
    return Engine("ketch", [str(program), "--root", str(root), "--state", str(state)])


@pytest.fixture
def file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "root.tar"
    path.write_bytes(ARCHIVE)
    return str(path)


def test_an_import_prints_the_images_identifier(ketch: Engine, file: str) -> None:
    assert ID.fullmatch(ketch.ok("import", file, "busybox"))
    assert ID.fullmatch(ketch.ok("import", "-", stdin=ARCHIVE))
    assert ID.fullmatch(ketch.ok("image", "import", "-c", "CMD sh", "-m", "hello", file, "a:b"))


def test_a_url_is_downloaded(ketch: Engine) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/root.tar" else 404)
            self.end_headers()
            self.wfile.write(ARCHIVE if self.path == "/root.tar" else b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert ID.fullmatch(ketch.ok("import", f"{url}/root.tar", "x"))
        assert "Not Found" in ketch("import", f"{url}/other").err
        server.shutdown()
    refused = ketch("import", f"{url}/root.tar")
    assert (refused.status, refused.err) == (
        1, f"ketch: open {url}/root.tar: connection refused\n",
    )  # fmt: skip


def test_tables_have_dockers_columns(ketch: Engine, file: str) -> None:
    whole = ketch.ok("import", file, "bb:1")
    short = whole[7:19]
    head = "REPOSITORY   TAG       IMAGE ID       CREATED"
    listing = ketch.ok("images").splitlines()
    assert re.fullmatch(head + r" {6,18}SIZE", listing[0])
    assert re.fullmatch(rf"bb           1         {short}   .+ ago   +1\.98MB", listing[1])
    assert ketch.ok("images", "-q") == short
    assert ketch.ok("images", "-q", "--no-trunc") == whole
    assert ketch.ok("images", "nonsuch") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"
    digests = ketch.ok("image", "ls", "--digests").splitlines()
    assert digests[0].startswith("REPOSITORY   TAG       DIGEST    IMAGE ID       CREATED")
    assert digests[1].startswith(f"bb           1         <none>    {short}   ")
    ketch.ok("import", file, "a-much-longer-name/of-an-image:with-a-tag")
    ketch.ok("import", file)
    longer = ketch.ok("images", "-a").splitlines()
    assert longer[0].startswith("REPOSITORY                       TAG          IMAGE ID ")
    assert longer[1].startswith("<none>                           <none>       ")
    assert longer[3].startswith(f"bb                               1            {short}")


def test_names_go_one_by_one_and_the_image_with_the_last(ketch: Engine, file: str) -> None:
    whole = ketch.ok("import", file, "bb:1")
    assert ketch.ok("tag", "bb:1", "two") == ""
    assert ketch.ok("rmi", "bb:1") == "Untagged: bb:1"
    lines = ketch.ok("rmi", whole[7:12]).splitlines()
    assert lines[:2] == ["Untagged: two:latest", f"Deleted: {whole}"]
    assert re.fullmatch(r"Deleted: sha256:[0-9a-f]{64}", lines[2])
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rmi", "nonsuch"], "No such image: nonsuch:latest"),
        (["rmi", "a:b:c"], "invalid reference format"),
        (["tag", "nonsuch", "x"], "No such image: nonsuch:latest"),
        (["import", "/nonexistent"], "open /nonexistent: no such file or directory"),
        (["import", "/"], "open /: is a directory"),
        (["import", "/etc/passwd"], "malformed tar archive: a header has a wrong checksum"),
        (["import", "/etc/passwd", "BB"],
         "invalid reference format: repository name (library/BB) must be lowercase"),
        (["import", "-c", "RUN x", "/etc/passwd"], "run is not a valid change command"),
    ],
)  # fmt: skip
def test_what_fails_says_why_in_one_line(ketch: Engine, arguments: list[str], message: str) -> None:
    result = ketch(*arguments)
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines()[0] == f"ketch: {message}"


def test_what_can_be_removed_is_and_the_rest_is_named(ketch: Engine, file: str) -> None:
    ketch.ok("import", file, "a")
    result = ketch("rmi", "no", "a", "nor")
    assert result.status == 1
    assert result.out.startswith("Untagged: a:latest\nDeleted: sha256:")
    assert result.err == "ketch: No such image: no:latest\nNo such image: nor:latest\n"
    assert ketch("rmi", "-f", "gone").status == 0


def test_a_layer_is_told_of_with_the_last_of_many_images_that_had_it(
    ketch: Engine, file: str
) -> None:
    first = ketch.ok("import", file, "a")
    second = ketch.ok("import", "-m", "of the same files", file, "b")
    ketch.ok("tag", "b", "c")
    (layer,) = json.loads(ketch.ok("image", "inspect", "-f", "{{json .RootFS.Layers}}", "a"))
    assert ketch.ok("rmi", "a", "b", "c").splitlines() == [
        "Untagged: a:latest", f"Deleted: {first}", "Untagged: b:latest",
        "Untagged: c:latest", f"Deleted: {second}", f"Deleted: {layer}",
    ]  # fmt: skip


def test_other_tools_are_told_of_a_change_without_reading_what_is_known(
    ketch: Engine, file: str, tmp_path: pathlib.Path
) -> None:
    ketch.ok("import", file, "a")
    index = tmp_path / "root" / "index.json"
    known = json.loads(index.read_bytes())["manifests"][0]
    algorithm, digits = known["digest"].split(":")
    manifest = tmp_path / "root" / "blobs" / algorithm / digits
    whole = manifest.read_bytes()
    manifest.write_bytes(b" " * len(whole))
    ketch.ok("tag", "a", "b")
    named = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry
             for entry in json.loads(index.read_bytes())["manifests"]}  # fmt: skip
    assert named["a:latest"] == known
    manifest.write_bytes(whole)

    # What somebody else made of the list is not believed.
    known["size"] += 1
    for content in (
        b"",
        b"[]",
        b'{"manifests": [{}]}',
        json.dumps({"manifests": [known]}).encode(),
    ):
        index.write_bytes(content)
        ketch.ok("tag", "a", "b")
        entries = json.loads(index.read_bytes())["manifests"]
        assert [entry["size"] for entry in entries] == [len(whole)] * 2
        assert {entry["digest"] for entry in entries} == {known["digest"]}


@pytest.mark.parametrize("command", ["import", "rmi", "tag"])
def test_too_few_arguments_are_a_usage_error(ketch: Engine, command: str) -> None:
    result = ketch(command)
    assert result.status == 1
    assert f"'ketch {command}' requires" in result.err
