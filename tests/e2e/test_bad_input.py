"""Bad input gets one clear error, the right exit status, and leaves nothing."""

import os
import pathlib
import platform
import stat
import struct
import subprocess

import pytest

from tests.support.commands import Engine


def test_an_unknown_image(engine: Engine) -> None:
    result = engine("run", "--rm", "no.such.registry.invalid/image:1", "true")
    assert result.status == 125
    assert "no.such.registry.invalid/image:1" in result.err or engine.name == "docker"


@pytest.mark.parametrize("image", ["UPPER", "a b", "x:", "-x", ""])
def test_a_malformed_image(engine: Engine, image: str) -> None:
    result = engine("run", "--rm", "--", image, "true")
    assert result.status == 125
    assert result.err.strip()


def test_a_name_in_use(engine: Engine) -> None:
    engine.ok("run", "--name", "taken", "busybox", "true")
    result = engine("run", "--name", "taken", "busybox", "true")
    assert result.status == 125
    assert "taken" in result.err
    assert "in use" in result.err
    engine.ok("rm", "taken")


@pytest.mark.parametrize(
    "command", ["inspect", "rm", "start", "logs", "cp . {}:/", "exec {} true", "network rm",
                "volume inspect"],
)  # fmt: skip
def test_a_name_that_is_no_utf8(ketch: Engine, command: str) -> None:
    words = command.split() if "{}" in command else [*command.split(), "{}"]
    result = ketch(*(word.replace("{}", os.fsdecode(b"no\xff")) for word in words))
    assert result.status == 1
    assert "no\\xff" in result.err
    assert "udcff" not in result.err
    assert "internal error" not in result.err


def test_output_that_cannot_be_written_is_told_of(ketch: Engine) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ketch.prefix, "images"], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, **ketch.environment},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "ketch: No space left on device\n")


@pytest.mark.parametrize("name", ["-x", "a/b", "ä", "a b"])
def test_a_malformed_name(engine: Engine, name: str) -> None:
    result = engine("run", f"--name={name}", "busybox", "true")
    assert result.status == 125
    assert name in result.err


@pytest.mark.parametrize(
    "options",
    [
        ["-e", "=x"],
        ["--env-file", "/no/such/file"],
        ["--network"],
        ["--cap-add", "NONSENSE"],
        ["--security-opt", "nonsense=1"],
        ["--security-opt", "seccomp=/no/such/profile"],
        ["--stop-signal", "NONSENSE"],
        ["--add-host", "nonsense"],
        ["--dns", "nonsense"],
        ["-w", "relative"],
        ["--init=maybe"],
        ["--rm=maybe"],
    ],
)
def test_malformed_options(engine: Engine, options: list[str]) -> None:
    result = engine("run", *options, "busybox", "true")
    assert result.status == 125
    assert result.err.strip()
    assert "Traceback" not in result.err


@pytest.fixture
def programs(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory of files that look like programs and are none."""
    directory = tmp_path / "programs"
    directory.mkdir()
    foreign = 183 if platform.machine() == "x86_64" else 62  # EM_AARCH64, EM_X86_64
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, foreign, 1,
        0x400078, 64, 0, 0, 64, 56, 0, 0, 0, 0)  # fmt: skip
    contents = {
        "no-interpreter": b"#!/no/such/interpreter\n",
        "crlf": b"#!/bin/sh\r\necho hello\r\n",
        "foreign": header + bytes(200),
        "empty": b"",
        "text": b"just some words\n",
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o755)
    (directory / "not-executable").write_bytes(b"#!/bin/sh\n")
    return directory


@pytest.mark.parametrize(
    ("name", "statuses", "words"),
    [
        ("no-interpreter", {127}, "/no/such/interpreter"),
        ("crlf", {127}, "CR"),
        ("foreign", {127}, "x86_64" if platform.machine() == "x86_64" else "aarch64"),
        ("not-executable", {126}, "permission"),
        ("empty", {126, 127}, "empty"),
        ("text", {126, 127}, "#!"),
    ],
)
def test_a_start_that_fails_says_why(
    engine: Engine, programs: pathlib.Path, name: str, statuses: set[int], words: str
) -> None:
    result = engine("run", "--rm", "-v", f"{programs}:/p", "busybox", f"/p/{name}")
    if engine.name == "docker":  # it says "exec format error" or "no such file" for most of these
        assert result.status in statuses | {1, 127, 255}
        return
    assert result.status in statuses, result
    assert f"/p/{name}" in result.err
    assert words.lower() in result.err.lower()


def test_a_missing_loader_is_named(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """A dynamically linked program in an image without its loader."""
    program = tmp_path / "program"
    program.write_bytes(pathlib.Path("/bin/true").read_bytes())
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXOTH)
    result = ketch("run", "--rm", "-v", f"{program}:/program", "busybox", "/program")
    assert result.status == 127
    assert "/program" in result.err
    assert "ld-linux" in result.err


def test_errors_are_one_line_and_a_hint(ketch: Engine) -> None:
    for arguments in (["run", "no-such-image", "true"], ["rm", "nothing"], ["nonsense"]):
        result = ketch(*arguments)
        assert result.status != 0
        assert "Traceback" not in result.err
        assert result.err.startswith(("ketch:", "Error", "Unable"))
        assert len(result.err.strip().splitlines()) <= 4


@pytest.mark.root_engine("takes what the test needs to become the user")
def test_not_root(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """As nobody, with directories that nobody may write."""
    command = [*ketch.prefix, "run", "--rm", "busybox", "true"]
    done = subprocess.run(command, check=False, capture_output=True, text=True,
                          user="nobody", group="nogroup", extra_groups=[], cwd="/")  # fmt: skip
    if "Permission denied" in done.stderr and "can't open file" in done.stderr:
        pytest.skip("nobody cannot read this checkout")
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert "root" in done.stderr


@pytest.mark.root_engine("takes what the test needs to become the user")
@pytest.mark.parametrize("option", [[], ["--no-zygote"]])
def test_who_may_not_start_containers_is_told_so(
    ketch: Engine, tmp_path: pathlib.Path, option: list[str]
) -> None:
    places = ["--root", str(tmp_path / "root"), "--state", str(tmp_path / "state")]
    command = [ketch.prefix[0], *option, *places, "run", "busybox", "true"]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", *command],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 125
    assert "containers cannot be started here" in done.stderr
    assert "needs root, with CAP_SYS_ADMIN" in done.stderr


def test_a_program_in_the_images_place(ketch: Engine) -> None:
    for command in ("run", "create"):
        refused = ketch(command, "/bin/sh")
        assert "invalid reference format" in refused.err
        assert f"the image comes first: ketch {command} IMAGE /bin/sh" in refused.err
    assert "comes first" not in ketch("run", "UPPER", "/bin/sh").err


def test_what_modes_there_are_is_told(ketch: Engine) -> None:
    told = ketch("run", "--userns", "nonsense", "busybox", "true").err
    assert "host, auto, keep-id, nomap, auto:size=N, keep-id:uid=N,gid=N, container:NAME" in told
    assert "host, container:NAME" in ketch("run", "--pid", "nonsense", "busybox", "true").err


@pytest.mark.root_engine("takes what the test needs to become the user")
def test_no_nft(ketch: Engine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nft is missing the network says so, and containers without one run."""
    if os.environ.get("PATH", "").count("nft"):
        pytest.skip("nft is in the PATH by name")
    monkeypatch.setenv("PATH", str(tmp_path))
    ketch.ok("run", "--rm", "--network", "none", "busybox", "true")


@pytest.mark.parametrize(
    "archive",
    [b"no archive at all" * 100, b"\x1f\x8bbroken gzip"],
    ids=["no tar", "no gzip"],
)
def test_import_of_nonsense(engine: Engine, tmp_path: pathlib.Path, archive: bytes) -> None:
    file = tmp_path / "archive.tar"
    file.write_bytes(archive)
    before = engine.ok("images", "-q")
    result = engine("import", str(file), "nonsense:1")
    assert result.status == 1
    assert result.err.strip()
    assert engine.ok("images", "-q") == before


def test_import_from_standard_input_and_run(engine: Engine) -> None:
    from tests.support.images import busybox_archive

    with busybox_archive().open("rb") as archive:
        engine.ok("import", "-", "piped:1", stdin=archive)
    engine.ok("run", "--rm", "piped:1", "true")
    engine.ok("rmi", "piped:1")


def test_import_of_a_missing_file(engine: Engine) -> None:
    result = engine("import", "/no/such/file.tar", "x:1")
    assert result.status == 1
    assert "/no/such/file.tar" in result.err


def test_nothing_of_a_failed_start_stays(engine: Engine) -> None:
    """With --rm a start that fails leaves no container; without, it stays as Created."""
    engine("run", "--rm", "busybox", "no-such-program")
    assert engine.ok("ps", "-aq") == ""
    engine("run", "--name", "failed", "busybox", "no-such-program")
    assert "Created" in engine.ok("ps", "-a")
    engine.ok("rm", "failed")
