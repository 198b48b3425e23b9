"""``--explain`` of ``build``: its plan, each layer with how it is made by hand, and the record."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Engine
from tests.support.told import run_script, steps, values_of

pytestmark = pytest.mark.root_engine("scripts do the same by hand, on the host")

ALL = r"""FROM busybox AS base
RUN mkdir /made && echo "it's" > /made/x && rm /bin/vi && rm -rf /etc/network; id -G > /made/id
FROM base AS other
RUN --mount=type=tmpfs,target=/scratch --mount=type=cache,target=/kept echo x > /scratch/y; \
    echo other > /other
FROM base
ENV A="b c"
WORKDIR /work/dir
COPY . /all/
COPY one /single
COPY --chmod=640 --chown=1:2 dir /work/dir
COPY --chown=nobody one dir/a /owned/
COPY --link dir/sub /linked
COPY --from=other /other /made/x ./
ADD files.tar /unpacked/
COPY <<X /here
some text
X
RUN --mount=type=bind,from=other,source=/other,target=/bound <<E
cat /bound > bound
echo "$A" > from-a; pwd > here; hostname > host
E
RUN --network=none ip -o link | wc -l > /links
USER 1000
RUN id -u > /tmp/id; id -g >> /tmp/id; grep CapBnd /proc/self/status > /tmp/capabilities
CMD ["echo", "built"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    (directory / "dir" / "sub").mkdir(parents=True)
    for name in ("one", "dir/a", "dir/sub/b", "skipped"):
        (directory / name).write_text(f"{name}\n")
    (directory / "dir" / "sub").chmod(0o711)
    (directory / "dir" / "link").symlink_to("a")
    (directory / ".dockerignore").write_text("skipped\n.dockerignore\n")
    with tarfile.open(directory / "files.tar", "w") as archive:
        archive.add(directory / "one", "inside/one")
    return directory


@pytest.fixture
def built(ketch: Engine, run_name: str) -> Iterator[str]:
    """Return an image's name, which goes in the end."""
    yield run_name
    ketch("rmi", "-f", run_name, f"{run_name}:hand")


def test_a_build_tells_plan_layers_and_record(ketch: Engine, context: Path, built: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN rm /bin/vi\nENV a=b\n")
    done = ketch("build", "-q", "--explain=json", "-t", built, str(context))
    assert done.status == 0, done.err
    shown = json.loads(ketch.ok("image", "inspect", built))[0]
    layer = values_of(done.err, "make a layer of what was written by")
    assert layer["diff-id"] == [shown["RootFS"]["Layers"][-1]]
    assert "no-command" not in layer
    documents = values_of(done.err, "write the image's configuration and manifest")
    assert documents == {"configuration": [shown["Id"]], "layers": ["2"]}
    assert values_of(done.err, "record the image")["name"] == [f"{built}:latest"]
    assert any("RUN rm /bin/vi" in said for said, _ in steps(done.err))
    again = ketch("build", "-q", "--explain=json", "-t", built, str(context))
    assert "make a layer" not in again.err, "it is in the cache"


@pytest.mark.parametrize("text", [ALL, "FROM scratch\nCOPY dir /\nCOPY one /x/b\n"])
def test_an_image_is_built_by_hand(
    ketch: Engine, context: Path, tmp_path: Path, built: str, text: str
) -> None:
    (context / "Dockerfile").write_text(text)
    done = ketch("build", "--no-cache", "-q", "--explain=commands", "-t", built, str(context))
    assert done.status == 0, done.err
    wordless = [one for one in done.err.splitlines() if one.endswith("(no command does that)")]
    assert wordless == ["# record the image (no command does that)"]
    expected = _files(ketch, built)
    hand = tmp_path / "hand"
    hand.mkdir()
    script = done.err.replace(f'"{built}:latest"', f'"{built}:hand"')
    ran = run_script(script, cwd=hand)
    assert ran.returncode == 0, ran.stderr.decode()
    mounted = Path("/proc/self/mountinfo").read_text()
    assert str(hand) not in mounted, "it leaves nothing mounted"
    ketch.ok("load", "-i", str(hand / "image.tar"))
    assert _files(ketch, f"{built}:hand") == expected
    theirs, ours = (
        json.loads(ketch.ok("image", "inspect", name))[0] for name in (built, f"{built}:hand")
    )
    assert ours["Config"] == theirs["Config"]
    assert len(ours["RootFS"]["Layers"]) == len(theirs["RootFS"]["Layers"])
    histories = [ketch.ok("history", "-q", "--no-trunc", "--format", "{{.CreatedBy}}", name)
                 for name in (built, f"{built}:hand")]  # fmt: skip
    assert histories[0] == histories[1]


def test_what_is_in_the_cache_is_taken_from_the_store(
    ketch: Engine, context: Path, tmp_path: Path, built: str
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo a > /a\nCOPY one /one\n")
    ketch.ok("build", "-q", "-t", built, str(context))
    (context / "one").write_text("two\n")
    done = ketch("build", "-q", "--explain=commands", "-t", built, str(context))
    assert done.err.count("mount -t overlay") == 1, "what is in the cache is not made anew"
    ran = run_script(done.err.replace(f'"{built}:latest"', f'"{built}:hand"'), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr.decode()
    ketch.ok("load", "-i", str(tmp_path / "image.tar"))
    assert ketch.ok("run", "--rm", f"{built}:hand", "cat", "/a", "/one") == "a\ntwo"


def test_a_step_that_no_command_does_says_why(
    ketch: Engine, context: Path, tmp_path: Path, built: str
) -> None:
    (tmp_path / "secret").write_text("hush")
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null; echo a > /a\n"
    )
    words = ["build", "--no-cache", "-q", "--secret", f"id=s,src={tmp_path}/secret", "-t", built]
    told = ketch(*words, "--explain=json", str(context)).err
    layer = values_of(told, "make a layer of what was written by")
    assert layer["no-command"] == ["it has a mount of kind secret"]
    assert "hush" not in told


def test_nothing_leads_out_of_a_root(
    ketch: Engine, context: Path, tmp_path: Path, built: str
) -> None:
    """A base image has a symlink to the host where something is copied to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (context / "Dockerfile").write_text(
        f"FROM busybox AS base\nRUN ln -s {outside} /way && mkdir -p {outside}\n"
        "FROM base\nCOPY one /way/one\n"
    )
    done = ketch("build", "--no-cache", "-q", "--explain=commands", "-t", built, str(context))
    assert done.status == 0, done.err
    hand = tmp_path / "hand"
    hand.mkdir()
    try:
        ran = run_script(done.err, cwd=hand)
        assert ran.returncode == 1
        assert b"a symlink leads out of" in ran.stderr
        assert not [*outside.iterdir()]
    finally:
        for root in hand.glob("*/root"):
            subprocess.run(["umount", "-q", str(root)], check=False)


def _files(ketch: Engine, image: str) -> "dict[str, object]":
    """All files of an image: what they are, whose, and what is in them."""
    container = ketch.ok("create", image, "true")
    try:
        content = subprocess.run(
            [*ketch.prefix, "export", container], check=True, capture_output=True
        ).stdout
    finally:
        ketch.ok("rm", container)
    found: dict[str, object] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            found[member.name] = (
                member.type, oct(member.mode), member.uid, member.gid, member.linkname,
                file.read() if file else b"",
            )  # fmt: skip
    return found
