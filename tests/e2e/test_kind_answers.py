"""Who types the wrong thing is told what is wrong, where, and what to type instead.

Each line is typed on docker as well, which has to fail with the same exit status.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Engine, Result

# What is typed, the exit status, and words of the answer: what is wrong, then what to do.
# {box} runs, {still} does not, {d} is a directory with a file "junk" and no Dockerfile.
USES = [
    # Mistyped words
    ("rn busybox", 1, "unknown command", "did you mean ketch run?"),
    ("container lst", 1, "unknown command", "ketch container ls"),
    ("network creat x", 1, "unknown command", "did you mean ketch network create?"),
    ("ps --formatt x", 125, "--formatt", "did you mean --format?"),
    ("run --mem 5m busybox true", 125, "--mem", "did you mean --memory?"),
    ("run", 1, "requires at least 1 argument", "IMAGE"),
    ("tag busybox", 1, "requires 2 arguments", "TARGET_IMAGE"),
    ("exec {box}", 1, "requires at least 2 arguments", "CONTAINER COMMAND"),
    ("network connect {box}", 1, "requires 2 arguments", "NETWORK CONTAINER"),
    ("volume create a b", 1, "at most 1 argument", "--help"),
    ("build", 1, "requires 1 argument", "PATH | URL | -"),
    ("run --entrypoint", 125, "flag needs an argument: --entrypoint", "--help"),
    # Values
    ("run --memory 1 busybox true", 125, "6MB", "a number alone is bytes"),
    ("run --memory 10x busybox true", 125, "-m, --memory", "invalid suffix: 'x'"),
    ("run --cpus x busybox true", 125, "--cpus", "rational number"),
    ("run --restart sometimes busybox true", 125, "'sometimes'", "use one of 'no', 'always'"),
    ("run --user nobodyatall busybox true", 125, "nobodyatall", "a number needs no entry"),
    ("run -p 80:80:80 busybox true", 125, "invalid IP address: 80", "as in 8080:80"),
    ("run -p 80:x busybox true", 125, "containerPort: x", "as in 8080:80"),
    ("run -p 99999:80 busybox true", 125, "hostPort: 99999", "as in 8080:80"),
    ("run -p 80-82:80-81 busybox true", 125, "invalid ranges", "as in 8080:80"),
    ("run -v rel/path:/x busybox true", 125, "rel/path", "use absolute path"),
    ("run -v /tmp:/x:rwx busybox true", 125, "invalid mode: rwx", "ro and rw"),
    ("run -v /tmp:/x:/y:/z busybox true", 125, "too many colons", "SOURCE:TARGET[:OPTIONS]"),
    ("run -v /tmp:rel busybox true", 125, "'rel'", "must be absolute"),
    ("run --mount type=bnd,source=/tmp,target=/x busybox true", 125, '"bnd"', "type=bind"),
    ("run --mount type=bind,source=/nothere,target=/x busybox true", 125, "/nothere", "make it"),
    ("run --mount src=/tmp busybox true", 125, "--mount", "target is required"),
    ("run -e =x busybox true", 125, "--env", "=x"),
    ("run --cap-add NOTACAP busybox true", 125, "CAP_NOTACAP", "capabilities(7)"),
    ("run --add-host foo busybox true", 125, "foo", "NAME:ADDRESS"),
    ("run --stop-signal FOO busybox true", 125, "FOO", "kill -l"),
    ("run --ulimit nofile busybox true", 125, "--ulimit", "nofile"),
    ("run --log-driver nolog busybox true", 125, "nolog", "json-file"),
    ("run --pull sometimes busybox true", 125, "sometimes", "always"),
    ("run --rm --restart always busybox true", 125, "--restart and --rm", "conflicting"),
    ("run --network nothere busybox true", 125, "nothere", "ketch network ls"),
    ("run --userns foo busybox true", 125, "--userns", "keep-id"),
    ("kill -s FOO {box}", 1, "FOO", "kill -l"),
    ("ps --filter foo=bar", 1, "'foo'", "there are"),
    ("ps --filter foo", 125, "--filter", "name=value"),
    ("network create --subnet 10.1.2.3 x", 1, "10.1.2.3", "CIDR"),
    ("network create --subnet 10.1.2.0/24 --gateway 10.9.9.9 x", 1, "10.9.9.9", "subnet"),
    ("network create --driver nodriver x", 1, "nodriver", "bridge, macvlan"),
    ("network create bridge", 1, "bridge", "choose another name"),
    # One thing for another
    ("run busybox nosuchprogram", 127, "nosuchprogram", "spelling"),
    ("run --name {box} busybox true", 125, "{box}", "remove (or rename)"),
    ("run --name a --name {box} busybox true", 125, "{box}", "remove (or rename)"),
    ("run busybox:", 125, "invalid reference format", "[:tag]"),
    ("pull UPPER/Case", 1, "Case", "must be lowercase"),
    ("tag busybox a:b:c", 1, "a:b:c", "[:tag]"),
    ("rmi {box}", 1, "No such image: {box}", "ketch ps -a"),
    ("rm busybox", 1, "No such container: busybox", "ketch images"),
    ("logs busybox", 1, "No such container: busybox", "ketch images"),
    ("exec busybox sh", 1, "No such container: busybox", "ketch images"),
    ("exec {still} true", 1, "is not running", "ketch start"),
    ("kill {still}", 1, "is not running", "ketch start"),
    ("pause {still}", 1, "is not running", "ketch start"),
    ("rm {box}", 1, "is running", "stop the container"),
    ("rmi busybox", 1, "is using", "remove the container first"),
    ("cp {d}/junk {box}", 1, "container source", "CONTAINER:PATH"),
    ("cp {box}:/etc {still}:/tmp", 1, "between containers", "ketch cp - OTHER"),
    ("cp {d}/junk {box}:/no/such/dir/", 1, "no such directory", "slash"),
    ("volume rm nothere", 1, "nothere", "ketch volume ls"),
    ("load", 1, "neither a manifest.json", "ketch import"),
    ("load -i {d}/junk", 1, "tar archive", "cut short"),
    ("build -q {d}", 1, "Dockerfile", "-f names another"),
    ("build -q -t UPPER {d}", 1, "UPPER", "must be lowercase"),
    ("update {box}", 1, "one or more flags", "update --help"),
    ("network connect bridge {box}", 1, "already exists", "disconnect it first"),
]  # fmt: skip
# What docker does and ketch does not, or other engines alone.
OTHERS = [
    ("import -", 1, "empty", "ketch import -"),
    ("run /bin/sh", 125, "invalid reference format", "the image comes first"),
    ("-H tcp://127.0.0.1:1 ps", 125, "asks no daemon", "DOCKER_HOST=ssh://HOST"),
    ("--context x ps", 125, "asks no daemon", "DOCKER_HOST=ssh://HOST"),
    ("--log-level debug ps", 125, "--log-level", "ketch serve --log-level"),
    ("--runtime crun ps", 125, "--runtime", "ketch-oci"),
    ("--remote ps", 125, "--remote", "ssh HOST ketch"),
    ("context ls", 1, "unknown command", "ssh HOST ketch"),
    ("plugin ls", 1, "unknown command", "built in"),
    ("swarm init", 1, "no cluster", "ketch compose"),
    ("service ls", 1, "no cluster", "ketch compose"),
    ("stack deploy -c x y", 1, "no cluster", "ketch compose"),
    ("node ls", 1, "no cluster", "ketch compose"),
    ("config ls", 1, "no cluster", "ketch compose"),
    ("secret ls", 1, "unknown command", "build --secret"),
    ("trust inspect busybox", 1, "unknown command", "sha256"),
    ("buildx build .", 1, "unknown command", "ketch build"),
    ("scan busybox", 1, "unknown command", "ketch save IMAGE |"),
    ("generate systemd x", 1, "unknown command", "ketch serve --install-unit"),
    ("machine start", 1, "unknown command", "no virtual machine"),
    ("pod create", 1, "unknown command", "container:NAME"),
    ("play kube x.yaml", 1, "unknown command", "container:NAME"),
    ("spec", 1, "unknown command", "ketch-oci"),
    ("state x", 1, "unknown command", "ketch-oci"),
]  # fmt: skip


@pytest.fixture
def scene(engine: Engine, run_name: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return what the names in a line stand for."""
    (tmp_path / "junk").write_text("hello\n")
    found = {"box": f"{run_name}-box", "still": f"{run_name}-still", "d": str(tmp_path)}
    yield found
    engine("rm", "-f", found["box"], found["still"])
    if failed := engine.ok("ps", "-aq", "-f", "status=created").split():  # those that run refused
        engine.ok("rm", *failed)


@pytest.mark.parametrize(("line", "status", "wrong", "instead"), USES, ids=[one[0] for one in USES])
def test_a_wrong_use_is_answered_kindly(
    engine: Engine, scene: "dict[str, str]", line: str, status: int, wrong: str, instead: str
) -> None:
    if "{box}" in line or line == "rmi busybox":
        engine.ok("run", "-d", "--name", scene["box"], "busybox", "sleep", "100")
    if "{still}" in line:
        engine.ok("create", "--name", scene["still"], "busybox", "true")
    words = shlex.split(line.format(**scene))
    answer = engine(*words, stdin=b"")
    assert answer.status == status, answer
    if engine.name != "docker":
        _check(answer, wrong.format(**scene), instead)


@pytest.mark.parametrize(
    ("line", "status", "wrong", "instead"), OTHERS, ids=[one[0] for one in OTHERS]
)
def test_another_engines_use_is_answered_kindly(
    ketch: Engine, line: str, status: int, wrong: str, instead: str
) -> None:
    answer = ketch(*shlex.split(line), stdin=b"")
    assert answer.status == status, answer
    _check(answer, wrong, instead)


def _check(answer: Result, wrong: str, instead: str) -> None:
    assert wrong in answer.err, answer
    assert instead in answer.err, answer
    assert "Traceback" not in answer.err
    assert "internal error" not in answer.err
