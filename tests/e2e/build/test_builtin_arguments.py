"""Build arguments that BuildKit gives a meaning: each by what the program does with it.

``BUILDKIT_INLINE_CACHE`` is in ``test_faces.py``, ``BUILDKIT_CACHE_MOUNT_NS`` in
``test_language.py``, ``BUILDKIT_DOCKERFILE_CHECK`` in ``test_questions.py``.
"""

import io
import json
import pathlib
import re
import shutil
import tarfile

import pytest

from tests.support.archives import archive, member
from tests.support.commands import Engine
from tests.support.registry import Handler, fake
from tests.support.repositories import Repository, served

SCANNER = """FROM busybox
COPY <<'EOT' /scan
echo '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",'
echo "\\"predicate\\": {\\"seen\\": \\"$(cd /run/src && find . -name 'only-*' | sort)\\"}}"
EOT
ENTRYPOINT ["sh", "-c", "sh /scan | tr '\\\\n' ' ' > ${BUILDKIT_SCAN_DESTINATION}sbom.json"]
"""
SCANNED = """ARG BUILDKIT_SBOM_SCAN_CONTEXT
FROM busybox AS made
ARG BUILDKIT_SBOM_SCAN_STAGE
RUN echo > /only-made
FROM scratch
COPY --from=made /only-made /only-copied
"""


def blob(layout: pathlib.Path, descriptor: dict[str, str]) -> dict[str, object]:
    path = layout / "blobs" / descriptor["digest"].replace(":", "/")
    return dict(json.loads(path.read_text()))


def laid_out(ketch: Engine, layout: pathlib.Path, *words: str) -> list[dict[str, object]]:
    """Build an OCI layout; return the document that its index leads to, and those below it."""
    ketch.ok("build", "-q", "-o", f"type=oci,tar=false,dest={layout}", *words)
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    top = blob(layout, entry)
    inner = top.get("manifests", [])
    assert isinstance(inner, list)
    return [top, *(blob(layout, one) for one in inner)]


def argument(text: str) -> tuple[str, str]:
    return "--build-arg", text


def test_one_platform_may_be_an_index(ketch: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    for number, (words, indexed) in enumerate(
        [((), False), (argument("BUILDKIT_MULTI_PLATFORM=true"), True)]
    ):
        found = laid_out(ketch, tmp_path / f"{number}", "--provenance=false", *words, str(tmp_path))
        assert ("manifests" in found[0]) is indexed
        assert "layers" in found[-1]
    both = ("--platform", "linux/amd64,linux/arm64", "--output", "type=cacheonly")
    refused = ketch("build", *both, *argument("BUILDKIT_MULTI_PLATFORM=0"), str(tmp_path))
    assert "returning multiple target platforms is not allowed" in refused.err
    refused = ketch("build", *argument("BUILDKIT_MULTI_PLATFORM=x"), str(tmp_path))
    assert "invalid boolean value for multi-platform: x" in refused.err


def test_what_steps_are_called_and_who_reads_the_dockerfile(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN hostname; env | grep -c BUILDKIT\n")
    done = ketch(
        "build", "--progress=plain", "--output=type=cacheonly",
        *argument("BUILDKIT_SANDBOX_HOSTNAME=chosen"),
        *argument("BUILDKIT_SYNTAX=nobody.example/no/frontend"),
        *argument("BUILDKIT_BUILD_NAME=named"), str(tmp_path),
    )  # fmt: skip
    assert done.status == 1  # for grep finds none: what nobody declares is no variable
    said = re.findall(r"^#\d+ [\d.]+ (\w+)$", done.err, re.MULTILINE)
    assert said == ["chosen", "0"]
    assert "not consumed" not in done.err


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_where_a_repository_keeps_its_own_files(ketch: Engine, tmp_path: pathlib.Path) -> None:
    project = Repository(tmp_path / "project.git")
    commit = project.commit(Dockerfile="FROM busybox\nCOPY . /all/\n", f="x")

    def of(*words: str) -> set[str]:
        ketch.ok("build", "-q", "-o", f"type=tar,dest={tmp_path}/out", *words)
        with tarfile.open(tmp_path / "out") as root:
            names = {one.name for one in root}
            if "all/.git/HEAD" in names:
                head = root.extractfile("all/.git/HEAD")
                assert head is not None
                assert head.read().decode().strip() == commit
        return {name for name in names if name in {"all/f", "all/.git/HEAD"}}

    with served(tmp_path) as server:
        url = f"http://{server.host}/project.git"
        assert of(url) == {"all/f"}
        assert of(*argument("BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"), url) == {"all/f", "all/.git/HEAD"}
        context = tmp_path / "context"
        context.mkdir()
        for flag, kept in (("", False), ("--keep-git-dir=true", True), ("--keep-git-dir", True)):
            text = f"FROM scratch\nADD {flag} {url} /all/\n"
            (context / "Dockerfile").write_text(text)
            assert ("all/.git/HEAD" in of(str(context))) is kept


def test_what_a_scanner_is_shown_besides(ketch: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "scanner").write_text(SCANNER)
    (tmp_path / "Dockerfile").write_text(SCANNED)
    (tmp_path / "only-here").touch()
    ketch.ok("build", "-q", "-f", str(tmp_path / "scanner"), "-t", "shown", str(tmp_path))

    def seen(number: int, *words: str) -> list[str]:
        layout = tmp_path / f"{number}"
        given = ("--provenance=false", "--sbom=generator=shown", *words, str(tmp_path))
        attestation = laid_out(ketch, layout, *given)[-1]
        layers = attestation["layers"]
        assert isinstance(layers, list)
        said = blob(layout, layers[0])["predicate"]
        assert isinstance(said, dict)
        return str(said["seen"]).split()

    image = "./core/sbom/only-copied"
    assert seen(1) == [image]
    assert seen(2, *argument("BUILDKIT_SBOM_SCAN_STAGE=true")) == [
        image, "./extras/sbom-made/only-made",
    ]  # fmt: skip
    everything = argument("BUILDKIT_SBOM_SCAN_CONTEXT=true")
    assert "./extras/sbom-context/only-here" in seen(3, *everything)
    ketch.ok("rmi", "shown")


def test_a_time_may_be_a_downloads(ketch: Engine, tmp_path: pathlib.Path) -> None:
    content = archive(
        member(b"old", data=b"1", mtime=1_000), member(b"new", data=b"2", mtime=2_000)
    )
    answered: dict[str, str] = {}

    def hook(request: Handler) -> bool:
        request.answer(200, content, dict(answered))
        return True

    with fake() as server:
        server.hooks[:] = [hook]
        url = f"http://{server.host}/sources.tar"
        text = f"FROM scratch AS sources\nADD {url} /\nFROM scratch\nCOPY --from=sources / /s/\n"
        (tmp_path / "Dockerfile").write_text(text)
        words = ("build", "-q", "-o", "type=tar,dest=-", "--no-cache")
        named = ("--build-context", f"there={url}?named")

        def time(name: str) -> float:
            done = ketch.start(
                *words, *named, *argument(f"SOURCE_DATE_EPOCH={name}"), str(tmp_path)
            )
            output, errors = done.communicate(timeout=60)
            assert done.returncode == 0, errors
            root = tarfile.open(fileobj=io.BytesIO(output))
            return root.getmember("s").mtime

        assert time("sources") == 2_000
        answered["Last-Modified"] = "Thu, 01 Jan 1970 01:00:00 GMT"
        assert time("there") == 3_600
    ketch.ok("builder", "prune", "--all", "--force")
