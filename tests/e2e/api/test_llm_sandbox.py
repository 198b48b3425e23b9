"""llm-sandbox, which drives a Docker daemon by docker-py, on ``ketch serve``."""

import pathlib
import tarfile

import docker  # type: ignore[import-untyped]
import pytest

from tests.support.commands import Engine

llm_sandbox = pytest.importorskip("llm_sandbox", reason="the package llm-sandbox is not installed")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not pathlib.Path("/usr/bin/python3").exists(), reason="this machine has no /usr/bin/python3"
    ),
]

# This machine's Python, seen in a busybox.
SEEN = {
    place: {"bind": place, "mode": "ro"}
    for place in ("/usr", "/lib", "/lib64")
    if pathlib.Path(place).exists()
}


@pytest.fixture
def image(ketch: Engine) -> str:
    """Return an image in which Python is called ``python``, once ``SEEN`` is there."""
    text = "FROM busybox\nRUN ln -s /usr/bin/python3 /bin/python\n"
    ketch.ok("build", "-t", "llm-python", "-", stdin=text)
    return "llm-python"


@pytest.mark.root_engine("a limit of memory is asked for")
def test_a_session_runs_code_and_copies_files(
    ketch: Engine, client: docker.DockerClient, image: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "given").write_text("given\n")
    running = {"command": ["sleep", "1000"], "volumes": SEEN, "mem_limit": "256m"}
    with llm_sandbox.SandboxSession(
        client=client, image=image, lang="python", skip_environment_setup=True,
        runtime_configs=running, workdir="/tmp",
    ) as session:  # fmt: skip
        said = session.run("import sys\nprint('from python', 6 * 7)\nprint('err', file=sys.stderr)")
        assert (said.exit_code, said.stdout) == (0, "from python 42\n"), said
        assert "err" in said.stderr
        failed = session.run("raise SystemExit(3)")
        assert failed.exit_code == 3
        assert session.execute_command("cat /nosuch").exit_code == 1
        session.copy_to_runtime(str(tmp_path / "given"), "/tmp/taken")
        assert session.execute_command("cat /tmp/taken").stdout == "given\n"
        session.run("open('/tmp/made', 'w').write('made')")
        if hasattr(tarfile, "data_filter"):  # else it refuses to, whatever the server
            session.copy_from_runtime("/tmp/made", str(tmp_path / "fetched"))
            assert (tmp_path / "fetched").read_text() == "made"
        limit = ketch.ok("ps", "-q", "--filter", f"ancestor={image}", "--no-trunc").split()
        shown = ketch.ok("inspect", "--format", "{{.HostConfig.Memory}}", limit[0])
        assert shown == str(256 << 20)
        with pytest.raises(llm_sandbox.exceptions.SandboxTimeoutError):
            session.run("while True: pass", timeout=2)
