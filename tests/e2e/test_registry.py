"""Images that travel through Debian's docker-registry, by ketch, docker, podman and skopeo."""

import base64
import json
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.support import images, layouts, leftovers, peers
from tests.support import registry as registries
from tests.support.archives import archive, member
from tests.support.commands import Engine, finish
from tests.support.registry import PASSWORD, USER

pytestmark = pytest.mark.skipif(
    not (shutil.which("docker-registry") and shutil.which("skopeo")),
    reason="docker-registry or skopeo is not installed",
)


@dataclass
class Fleet:
    """Everything in one set of namespaces: registries, ketch and its peers."""

    enter: list[str]
    directory: pathlib.Path
    host: str  # of the open registry
    ketch: Engine

    def engine(self, name: str) -> Engine:
        """Return a ketch with an empty store of its own."""
        places = [
            "--root",
            f"{self.directory}/{name}/root",
            "--state",
            f"{self.directory}/{name}/state",
        ]
        program = str(pathlib.Path(sys.executable).with_name("ketch"))
        configuration = str(self.directory / name)
        return Engine("ketch", [*self.enter, program, *places], {"DOCKER_CONFIG": configuration})

    def skopeo(self, *words: str) -> str:
        """Run skopeo."""
        done = subprocess.run([*self.enter, "skopeo", *words], check=False, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def fleet(scratch: pathlib.Path, run_name: str) -> Iterator[Fleet]:
    directory = scratch / "fleet"
    directory.mkdir()
    with (
        peers.namespaces(directory) as enter,
        registries.docker_registry(directory / "open", enter=enter) as host,
    ):
        fleet = Fleet(enter, directory, host, Engine("", []))
        fleet.ketch = fleet.engine("ketch")
        fleet.ketch.ok("import", "--change", "CMD [\"echo\", \"ran\"]",
                       str(images.busybox_archive()), f"{host}/ours")  # fmt: skip
        fleet.ketch.ok("push", "--quiet", f"{host}/ours")
        yield fleet
        leftovers.stop_zygotes(run_name)


@pytest.fixture(scope="module")
def docker(fleet: Fleet) -> Iterator[Engine]:
    directory = fleet.directory / "docker"
    directory.mkdir()
    try:
        with peers.docker(directory, enter=fleet.enter) as engine:
            # The command itself speaks to registries as well.
            yield replace(engine, prefix=[*fleet.enter, *engine.prefix])
    except peers.PeerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def podman(fleet: Fleet) -> Iterator[Engine]:
    directory = fleet.directory / "podman"
    directory.mkdir()
    try:
        with peers.podman(directory, enter=fleet.enter) as engine:
            yield engine
    except peers.PeerUnavailableError as error:
        pytest.skip(str(error))


def layers(engine: Engine, image: str) -> list[str]:
    found: list[str] = json.loads(
        engine.ok("image", "inspect", "--format", "{{json .RootFS.Layers}}", image)
    )
    return found


def digest_of(output: str) -> str:
    found = re.search(r"sha256:[0-9a-f]{64}", output)
    assert found, output
    return found[0]


# What ketch pushed, others can have; what others pushed, ketch can


def test_docker_pulls_and_runs_what_ketch_pushed(fleet: Fleet, docker: Engine) -> None:
    pushed = digest_of(fleet.ketch.ok("push", f"{fleet.host}/ours"))
    pulled = docker.ok("pull", f"{fleet.host}/ours")
    assert f"Digest: {pushed}" in pulled
    assert docker.ok("run", "--rm", f"{fleet.host}/ours") == "ran"


def test_podman_and_skopeo_take_it_as_well(fleet: Fleet, podman: Engine) -> None:
    podman.ok("pull", "--tls-verify=false", f"{fleet.host}/ours")
    found = json.loads(fleet.skopeo("inspect", "--tls-verify=false", f"docker://{fleet.host}/ours"))
    assert found["Digest"] == digest_of(fleet.ketch.ok("push", f"{fleet.host}/ours"))
    ours = fleet.ketch.ok("images", "--no-trunc", "--quiet", f"{fleet.host}/ours").split()[0]
    assert ours.removeprefix("sha256:") in podman.ok("images", "--no-trunc", "--quiet")


def test_ketch_pulls_what_docker_pushed(fleet: Fleet, docker: Engine) -> None:
    name = f"{fleet.host}/dockers"
    docker.ok("tag", "busybox", name)
    pushed = digest_of(docker.ok("push", name).splitlines()[-1])
    assert f"Digest: {pushed}" in fleet.ketch.ok("pull", name)
    assert fleet.ketch.ok("run", "--rm", name, "echo", "ran") == "ran"
    # Others can read it in every form, though its manifest is Docker's.
    saved = str(fleet.directory / "saved")
    sources = []
    for form in ("docker-archive", "oci-archive", "oci-dir"):
        fleet.ketch.ok("save", "--format", form, "-o", f"{saved}-{form}", name)
        sources.append(f"{form.replace('-dir', '')}:{saved}-{form}:"
                       f"{f'{name}:latest' if form == 'docker-archive' else 'latest'}")  # fmt: skip
    for source in sources:
        told = json.loads(fleet.skopeo("inspect", "--config", source))
        assert told["rootfs"]["diff_ids"] == layers(fleet.ketch, name), source
    if shutil.which("umoci"):
        subprocess.run(["umoci", "unpack", "--image", f"{saved}-oci-dir:latest",
                        f"{saved}-bundle"], check=True, capture_output=True)  # fmt: skip
        assert (fleet.directory / "saved-bundle/rootfs/bin/busybox").exists()
    index = json.loads((fleet.directory / "saved-oci-dir/index.json").read_bytes())
    layouts.validate("image-index-schema.json", index)
    # The store's own index tells of it what it is.
    root = pathlib.Path(fleet.ketch.prefix[-3])
    for entry in json.loads((root / "index.json").read_bytes())["manifests"]:
        blob = root / "blobs" / entry["digest"].replace(":", "/")
        assert entry["mediaType"] == json.loads(blob.read_bytes())["mediaType"]
    # And gives it back as it was.
    fleet.ketch.ok("tag", name, f"{name}-again")
    assert digest_of(fleet.ketch.ok("push", f"{name}-again").splitlines()[-1]) == pushed


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_ketch_pulls_what_podman_pushed(fleet: Fleet, podman: Engine, form: str) -> None:
    name = f"{fleet.host}/podmans-{form}"
    podman.ok("push", "--tls-verify=false", "--format", form, "busybox", name)
    fleet.ketch.ok("pull", name)
    assert fleet.ketch.ok("run", "--rm", name, "echo", "ran") == "ran"


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_ketch_pulls_what_skopeo_copied(fleet: Fleet, compression: str) -> None:
    name = f"{fleet.host}/copied-{compression}"
    fleet.skopeo(
        "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "oci",
        "--dest-compress-format", compression, f"docker://{fleet.host}/ours", f"docker://{name}",
    )  # fmt: skip
    engine = fleet.engine(f"for-{compression}")
    engine.ok("pull", "--quiet", name)
    assert engine.ok("image", "inspect", "--format", "{{.Id}}", name) == fleet.ketch.ok(
        "image", "inspect", "--format", "{{.Id}}", f"{fleet.host}/ours"
    )


# The same words as docker


def test_output_and_status_are_dockers(fleet: Fleet, docker: Engine) -> None:
    name = f"{fleet.host}/words"
    for text in (b"one", b"two"):  # neither engine has seen these layers
        content = archive(member(b"file", data=text))
        fleet.ketch.ok("import", "-", f"{name}:{text.decode()}", stdin=content)
        fleet.ketch.ok("push", "--quiet", f"{name}:{text.decode()}")
    fleet.ketch.ok("tag", f"{name}:one", name)
    digest = digest_of(fleet.ketch.ok("push", name))
    ketch = fleet.engine("words")
    for words in (("pull", f"{name}@{digest}"), ("pull", f"{name}:one@{digest}"),
                  ("pull", "--quiet", f"{name}:one@{digest}"),
                  ("rmi", f"{name}@{digest}"),
                  ("pull", name), ("pull", name), ("pull", "--quiet", name),
                  ("pull", "--platform", "amd64", name), ("pull", "scratch"),
                  ("pull", "--all-tags", "--quiet", name), ("rmi", f"{name}:one", f"{name}:two"),
                  ("pull", "--all-tags", name), ("push", "--quiet", name),
                  ("push", "--all-tags", "--quiet", name), ("pull", f"{name}:none"),
                  ("pull", "BAD"),
                  ("pull", "--all-tags", f"{name}:one"), ("push", name), ("push", name + ":none"),
                  ("push", "--all-tags", name), ("pull",), ("push", "a", "b")):  # fmt: skip
        ours, theirs = ketch(*words), docker(*words)
        assert ours.status == theirs.status, f"{ours}\n{theirs}"
        assert normal(ours.out) == normal(theirs.out)
        if ours.status and len(words) > 1:
            said = re.sub("^(?:ketch|docker|Error response from daemon|Error): ", "", theirs.err)
            assert said.strip().splitlines()[0].replace("'docker ", "'ketch ") in ours.err


def normal(output: str) -> list[str]:
    """Return the lines in one order, without states that docker may skip over.

    What it pushes are manifests of its own making.
    """
    skipped = ("Verifying Checksum", "Download complete", "Waiting")
    lines = [line for line in output.splitlines() if not line.endswith(skipped)]
    return sorted(re.sub(r"digest: \S+ size: \d+", "digest", line) for line in lines)


def test_a_missing_image_is_pulled_for_run(fleet: Fleet) -> None:
    ketch = fleet.engine("missing")
    name = f"{fleet.host}/ours"
    refused = ketch("run", "--rm", "--pull", "never", name)
    assert (refused.status, refused.out) == (125, "")
    assert f"No such image: {name}:latest" in refused.err
    first = ketch("run", "--rm", name)
    assert (first.status, first.out) == (0, "ran\n")
    assert first.err.splitlines()[:2] == [
        f"Unable to find image '{name}:latest' locally", "latest: Pulling from ours"
    ]  # fmt: skip
    again = ketch("run", "--rm", name)
    assert (again.status, again.out, again.err) == (0, "ran\n", "")
    always = ketch("run", "--rm", "--pull", "always", name)
    assert (always.out, "Image is up to date" in always.err) == ("ran\n", True)
    quiet = ketch("create", "--quiet", "--pull", "always", name)
    assert (quiet.status, quiet.err) == (0, "")
    ketch.ok("rm", quiet.out.strip())
    nowhere = ketch("run", "--rm", f"{name}-not")
    assert nowhere.status == 125
    assert "not found: manifest unknown" in nowhere.err


def test_a_terminal_shows_bars_in_place(fleet: Fleet) -> None:
    terminal = fleet.engine("terminal").terminal("pull", f"{fleet.host}/ours", columns=150)
    terminal.expect("Pull complete")
    assert "\x1b[1A" in str(terminal.before)
    assert finish(terminal) == 0


# Platforms


def test_a_list_for_several_platforms(fleet: Fleet, docker: Engine) -> None:
    ketch, name = fleet.ketch, f"{fleet.host}/several"
    for architecture in ("amd64", "arm64"):
        ketch.ok("import", "--platform", f"linux/{architecture}", str(images.busybox_archive()),
                 f"{name}:{architecture}")  # fmt: skip
        ketch.ok("push", "--quiet", f"{name}:{architecture}")
    ketch.ok("manifest", "create", name, f"{name}:amd64", f"{name}:arm64")
    assert ketch("manifest", "create", name, f"{name}:amd64").status == 1
    annotation = ["--variant", "v8", "--os-version", "1", "--os-features", "a,b"]
    ketch.ok("manifest", "annotate", *annotation, name, f"{name}:arm64")
    local = ketch.ok("manifest", "inspect", name)
    digest = ketch.ok("manifest", "push", "--purge", name)
    for image in (f"{name}:arm64", name):
        schema = "image-manifest-schema.json" if ":arm" in image else "image-index-schema.json"
        told = fleet.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{image}")
        layouts.validate(schema, json.loads(told))
    theirs = f"{name}:by-docker"
    docker.ok("manifest", "create", "--insecure", theirs, f"{name}:amd64", f"{name}:arm64")
    docker.ok("manifest", "annotate", *annotation, theirs, f"{name}:arm64")
    assert docker.ok("manifest", "push", "--purge", "--insecure", theirs) == digest
    for command in ("create", "inspect"):
        words = [command, *([f"{name}:list"] if command == "create" else []), f"{name}:none"]
        ours, said = ketch("manifest", *words), docker("manifest", *words)
        assert (ours.status, ours.err) == (said.status, f"ketch: {said.err}")
    assert ketch.ok("manifest", "inspect", name) == local
    assert docker.ok("manifest", "inspect", "--insecure", name) == local
    assert ketch("manifest", "rm", name).status == 1
    for architecture in ("amd64", "arm64"):
        pulled = ketch.ok("pull", "--platform", f"linux/{architecture}", name)
        assert f"Digest: {digest}" in pulled
        assert ketch.ok("image", "inspect", "--format", "{{.Architecture}}", name) == architecture
    missing = ketch("pull", "--platform", "linux/s390x", name)
    assert missing.status == 1
    assert "no matching manifest for linux/s390x" in missing.err
    assert f"Digest: {digest}" in docker.ok("pull", name)


# Who may, and over what


def assert_logins_alike(ketch: Engine, docker: Engine, host: str) -> None:
    """Log in with what is kept, and with what is kept and wrong."""
    docker.ok("login", "--username", USER, "--password-stdin", host, stdin=PASSWORD.encode())
    for password in (PASSWORD, "wrong"):
        said = []
        for engine in (ketch, docker):
            file = pathlib.Path(engine.environment["DOCKER_CONFIG"]) / "config.json"
            document = json.loads(file.read_bytes())
            secret = base64.b64encode(f"{USER}:{password}".encode()).decode()
            document["auths"][host]["auth"] = secret
            before = file.read_bytes()
            file.write_text(json.dumps(document))
            done = engine("login", host)
            file.write_bytes(before)
            words = done.err.replace("Error: ", "").replace("ketch", "docker")
            words = re.sub(r"\x1b\[[0-9;]*m|Info (→|->) ", "", words.replace("docker: ", ""))
            # The old daemon's refusal is not known as one.
            words = re.sub("Login did not succeed, .*: 401 Unauthorized",
                           "Stored credentials invalid or expired", words)  # fmt: skip
            said.append((done.status, done.out.strip(), words.split()))
        assert said[0] == said[1]
    docker.ok("logout", host)


def test_a_registry_that_wants_a_password(fleet: Fleet, docker: Engine) -> None:
    with registries.docker_registry(
        fleet.directory / "closed", password=True, enter=fleet.enter
    ) as host:
        ketch = fleet.ketch
        ketch.ok("tag", f"{fleet.host}/ours", f"{host}/ours")
        assert "no basic auth credentials" in ketch("push", f"{host}/ours").err
        wrong = ketch("login", "--username", USER, "--password-stdin", host, stdin="wrong")
        assert wrong.status == 1
        assert f"login attempt to http://{host}/v2/ failed with status: 401" in wrong.err
        done = ketch("login", "--username", USER, "--password-stdin", host, stdin=f"{PASSWORD}\n")
        assert (done.status, done.out) == (0, "Login Succeeded\n")
        assert "stored unencrypted" in done.err
        again = ketch("login", host)
        assert (again.status, again.out) == (0, "Login Succeeded\n")
        assert "Authenticating with existing credentials... [Username: alice]" in again.err
        assert "stored unencrypted" not in again.err
        ketch.ok("push", f"{host}/ours")
        assert_logins_alike(ketch, docker, host)
        # Others read the same file.
        auth = f"{fleet.directory}/ketch/config.json"
        found = fleet.skopeo(
            "inspect", "--authfile", auth, "--tls-verify=false", f"docker://{host}/ours"
        )
        assert json.loads(found)["RepoTags"] == ["latest"]
        assert ketch.ok("logout", host) == f"Removing login credentials for {host}"
        refused = ketch("pull", f"{host}/ours")
        assert refused.status == 1
        assert "no basic auth credentials" in refused.err


def test_a_registry_with_tls(fleet: Fleet) -> None:
    with registries.docker_registry(
        fleet.directory / "tls", tls=True, password=True, enter=fleet.enter
    ) as host:
        # This machine's own addresses may have any certificate, as in Docker; a name may not.
        name = host.replace("127.0.0.1", "registry.test")
        certificates = fleet.directory / "certs.d" / name
        certificates.mkdir(parents=True)
        (certificates / "ca.crt").write_bytes((fleet.directory / "tls/cert.pem").read_bytes())
        settings = fleet.directory / "registries.json"
        settings.write_text(json.dumps({
            "certificate-directories": [str(fleet.directory / "certs.d")],
            "mirrors": {"nowhere.test": [f"https://{host}"]},
        }))  # fmt: skip
        ketch = fleet.engine("tls-client")
        ketch = Engine(
            "ketch", ketch.prefix, {**ketch.environment, "KETCH_REGISTRIES": str(settings)}
        )
        ketch.ok("login", "--username", USER, "--password-stdin", host, stdin=PASSWORD)
        ketch.ok("import", str(images.busybox_archive()), f"{host}/ours")
        ketch.ok("push", "--quiet", f"{host}/ours")
        assert f"{host}/ours" in ketch.ok("search", "--format", "{{.Name}}", f"{host}/our")
        pulled = ketch("pull", "nowhere.test/ours")
        assert pulled.status == 0, str(pulled)


def test_mounted_from_a_neighbour(fleet: Fleet) -> None:
    name = f"{fleet.host}/group/neighbour"
    fleet.ketch.ok("tag", f"{fleet.host}/ours", name)
    assert "Mounted from " in fleet.ketch.ok("push", name)
    assert "Layer already exists" in fleet.ketch.ok("push", name)
    fleet.ketch.ok("tag", name, f"{name}:second")
    assert "tag: latest" not in fleet.ketch.ok("push", "--all-tags", name)
    tags = json.loads(fleet.skopeo("list-tags", "--tls-verify=false", f"docker://{name}"))["Tags"]
    assert sorted(tags) == ["latest", "second"]
