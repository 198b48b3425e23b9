"""Time pull, import, load and save against docker and podman: ``python -m bench.images``.

All pull from one docker-registry on loopback, in namespaces of the benchmark's own: a whole Debian
as one gzip layer, and the same files in ten layers. The last table says what those bytes cost when
they are only read, inflated, hashed or written.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from bench.machine import machine
from tests.support import peers
from tests.support import registry as registries
from tests.support.commands import Engine
from tests.support.images import debian_archive

_LAYERS = 10
_MIB = 1 << 20


@dataclass
class Case:
    """One command of one engine, and what must be done before each run of it.

    Attributes:
        scene: row of the table.
        engine: column of the table.
        command: the program and its arguments.
        prepare: what is done before each run, and not counted.
        times_ns: how long each run took.
        memory_bytes: the most that the command's own process held.
    """

    scene: str
    engine: Engine
    command: list[str]
    prepare: Callable[[], object]
    times_ns: list[int] = field(default_factory=list)
    memory_bytes: int = 0

    def run(self, *, counted: bool) -> None:
        """Run it once."""
        self.prepare()
        os.sync()  # what the others wrote is not this one's affair
        program, *prefix = self.engine.prefix
        words = [program, *prefix, *self.command]
        null = os.open("/dev/null", os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
        environment = {**os.environ, **self.engine.environment}
        begun_ns = time.perf_counter_ns()
        pid = os.posix_spawnp(program, words, environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        taken_ns = time.perf_counter_ns() - begun_ns
        os.close(null)
        if status:
            raise RuntimeError(f"status {os.waitstatus_to_exitcode(status)} from {' '.join(words)}")
        if counted:
            self.times_ns.append(taken_ns)
            self.memory_bytes = max(self.memory_bytes, usage.ru_maxrss * 1024)

    @property
    def median_ms(self) -> float:
        """Median time of a run in milliseconds."""
        return statistics.median(self.times_ns) / 1e6


def main() -> int:
    """Run the rounds, print tables or JSON."""
    parser = argparse.ArgumentParser(prog="bench.images", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="scenes whose name begins so")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    debian_archive()  # once; from in there nothing leads to where it comes from
    with machine("bench.images") as (stack, scratch):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        host = stack.enter_context(registries.docker_registry(scratch / "registry"))
        archives = _publish(scratch, host)
        cases, notes = _cases(stack, scratch, host)
        cases = [case for case in cases if case.scene.startswith(options.only)]
        for number in range(-1, options.rounds):
            turn = number % len(cases)
            for case in [*cases[turn:], *cases[:turn]]:
                case.run(counted=number >= 0)
        floors = _floors(scratch, host, archives)
    if options.json:
        print(json.dumps(_facts(cases, floors, options.rounds), indent=2))
    else:
        print(_table(cases, floors, options.rounds, notes))
    return 0


def _publish(scratch: pathlib.Path, host: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Put both images into the registry; return Debian's archive, plain and compressed."""
    plain = debian_archive()
    packed = scratch / "debian.tar.gz"
    with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, _MIB)
    layers = [packed]
    _push(scratch, host, "debian", layers)
    _push(scratch, host, "ten", _split(plain, scratch))
    return plain, packed


def _split(plain: pathlib.Path, scratch: pathlib.Path) -> list[pathlib.Path]:
    """Share an archive's members out among ten, in order, by their size."""
    paths = [scratch / f"layer-{number}.tar.gz" for number in range(_LAYERS)]
    share = plain.stat().st_size / _LAYERS
    with contextlib.ExitStack() as stack:
        targets = [
            stack.enter_context(tarfile.open(path, "w:gz", compresslevel=6)) for path in paths
        ]
        with tarfile.open(plain) as source:
            for member in source:
                content = source.extractfile(member) if member.isreg() else None
                targets[min(int(member.offset / share), _LAYERS - 1)].addfile(member, content)
    return paths


def _push(scratch: pathlib.Path, host: str, name: str, layers: list[pathlib.Path]) -> None:
    """Push an image of these compressed layers, without any of the engines."""
    blobs = scratch / name / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_file(path: pathlib.Path) -> dict[str, object]:
        digest = _digest(path.open("rb"))
        os.link(path, blobs / digest)
        return {
            "mediaType": f"{registries.OCI_LAYER}+gzip",
            "digest": f"sha256:{digest}",
            "size": path.stat().st_size,
        }

    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Cmd": ["bash"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{_digest(gzip.GzipFile(layer))}" for layer in layers],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": registries.OCI_MANIFEST,
        "config": add(json.dumps(config).encode(), registries.OCI_CONFIG),
        "layers": [add_file(layer) for layer in layers],
    }
    described = add(json.dumps(manifest).encode(), registries.OCI_MANIFEST)
    described["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "manifests": [described]}
    (scratch / name / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (scratch / name / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', encoding="utf-8")
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{scratch / name}:latest",
         f"docker://{host}/{name}:latest"],
        check=True,
    )  # fmt: skip


def _digest(stream: "IO[bytes] | gzip.GzipFile") -> str:
    """Hash a stream piece by piece: this process must stay smaller than those it measures."""
    whole = hashlib.sha256()
    with stream:
        while piece := stream.read(_MIB):
            whole.update(piece)
    return whole.hexdigest()


def _cases(
    stack: contextlib.ExitStack, scratch: pathlib.Path, host: str
) -> tuple[list[Case], list[str]]:
    engines = [_ketch(scratch)]
    notes = []
    # podman mounts this over itself.
    unmount = ["umount", "--lazy", "--quiet", str(scratch / "podman" / "root" / "overlay")]
    stack.callback(subprocess.run, unmount, check=False)
    for name, start in (("docker", peers.docker), ("podman", peers.podman)):
        directory = scratch / name
        directory.mkdir()
        try:
            engines.append(stack.enter_context(start(directory, enter=["env"])))
        except peers.PeerUnavailableError as error:
            notes.append(str(error))
    plain = debian_archive()
    cases = []
    for engine in engines:
        lax = ["--tls-verify=false"] if engine.name == "podman" else []
        engine.ok("import", str(plain), "saved", timeout=120)
        saved = scratch / f"{engine.name}.tar"
        engine.ok("save", "--output", str(saved), "saved", timeout=120)
        again = saved.with_suffix(".again")
        # All of these have layers in common, which an engine would find there.
        names = ["saved", "imported", f"{host}/debian", f"{host}/ten"]
        remove = functools.partial(_remove, engine, names)
        for scene, command in (
            ("pull debian", ["pull", *lax, f"{host}/debian"]),
            ("pull ten", ["pull", *lax, f"{host}/ten"]),
            ("import", ["import", str(plain), "imported"]),
            ("load", ["load", "--input", str(saved)]),
        ):
            cases.append(Case(scene, engine, command, remove))
        load = functools.partial(_load_again, engine, saved, again)
        cases.append(Case("save", engine, ["save", "--output", str(again), "saved"], load))
    order = ["pull debian", "pull ten", "import", "load", "save"]
    return sorted(cases, key=lambda case: order.index(case.scene)), notes


def _remove(engine: Engine, names: list[str]) -> None:
    for name in names:
        engine("rmi", "--force", name, timeout=120)


def _load_again(engine: Engine, saved: pathlib.Path, again: pathlib.Path) -> None:
    engine("load", "--input", str(saved), timeout=120)
    again.unlink(missing_ok=True)


def _ketch(scratch: pathlib.Path) -> Engine:
    program = pathlib.Path(sys.executable).with_name("ketch")
    places = ["--root", f"{scratch}/ketch/root", "--state", f"{scratch}/ketch/state"]
    return Engine("ketch", [str(program), *places])


def _floors(
    scratch: pathlib.Path, host: str, archives: tuple[pathlib.Path, pathlib.Path]
) -> dict[str, float]:
    """Time what must be done with Debian's bytes, each step alone, in milliseconds."""
    plain, packed = archives
    digest = f"sha256:{_digest(packed.open('rb'))}"

    def fetch() -> None:
        with urllib.request.urlopen(f"http://{host}/v2/debian/blobs/{digest}") as answer:
            while answer.read(_MIB):
                pass

    def inflate() -> None:
        from isal import igzip  # noqa: PLC0415

        with igzip.open(packed) as stream:  # type: ignore[no-untyped-call]
            while stream.read(_MIB):
                pass

    def digest_of(path: pathlib.Path) -> Callable[[], None]:
        def work() -> None:
            with path.open("rb") as stream:
                hashlib.file_digest(stream, "sha256")

        return work

    def write_blob() -> None:
        target = scratch / "floor-blob"
        with packed.open("rb") as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, _MIB)
            os.fsync(sink.fileno())
        target.unlink()

    def write_files() -> None:
        target = scratch / "floor-files"
        target.mkdir()
        subprocess.run(["tar", "-C", target, "--numeric-owner", "-xpf", plain], check=True)
        subprocess.run(["sync", "--file-system", target], check=True)
        removing.append(target)

    removing: list[pathlib.Path] = []
    steps: dict[str, Callable[[], None]] = {
        "fetch the blob, and drop it": fetch,
        "hash the blob": digest_of(packed),
        "write the blob, and flush it": write_blob,
        "inflate it": inflate,
        "hash what is in it": digest_of(plain),
        "write the files (tar -x), and flush them": write_files,
        "start the interpreter and import what a pull needs": _imports,
    }
    return {name: statistics.median(_timed(step, removing)) for name, step in steps.items()}


def _imports() -> None:
    names = "ketch.cli.pull, ketch.engine.images.pulling"
    subprocess.run([sys.executable, "-I", "-c", f"import {names}"], check=True)


def _timed(step: Callable[[], None], removing: list[pathlib.Path]) -> Iterator[float]:
    for _ in range(3):
        os.sync()
        begun = time.perf_counter()
        step()
        yield (time.perf_counter() - begun) * 1e3
        while removing:
            shutil.rmtree(removing.pop())


def _facts(cases: list[Case], floors: dict[str, float], rounds: int) -> dict[str, object]:
    return {
        "rounds": rounds,
        "kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version(),
        "cases": [
            {
                "engine": case.engine.name, "scene": case.scene, "median_ms": case.median_ms,
                "times_ms": [taken / 1e6 for taken in case.times_ns],
                "memory_mib": case.memory_bytes / _MIB,
            }
            for case in cases
        ],
        "floors_ms": floors,
    }  # fmt: skip


def _table(cases: list[Case], floors: dict[str, float], rounds: int, notes: list[str]) -> str:
    lines = [
        f"images, median of {rounds} rounds in turns, on {os.cpu_count()} CPUs,"
        f" Linux {platform.release()}, Python {platform.python_version()}",
        "",
        f"{'':12}{'':10}{'median ms':>10}{'least':>8}{'most':>8}    ketch takes",
    ]
    ours = {case.scene: case for case in cases if case.engine.name == "ketch"}
    for case in cases:
        times = [taken / 1e6 for taken in case.times_ns]
        row = f"{case.scene:12}{case.engine.name:10}{case.median_ms:10.0f}"
        row += f"{min(times):8.0f}{max(times):8.0f}"
        our = ours[case.scene]
        if case is our:
            row += f"    {case.memory_bytes / _MIB:.0f} MiB at most"
        else:
            row += f"    {our.median_ms / case.median_ms:.2f} of {case.engine.name}'s time"
        lines.append(row)
    lines += ["", "What Debian's bytes cost alone"]
    lines += [f"  {name:52}{taken:7.0f} ms" for name, taken in floors.items()]
    return "\n".join([*lines, *(f"({note})" for note in notes)])


if __name__ == "__main__":
    sys.exit(main())
