"""What is typed after ``ketch build``, and what steps and images then have."""

import json
import os
import pathlib
import re
from typing import Any

import pytest

from tests.support.commands import Engine

TEXT = r"""FROM busybox
RUN grep there /etc/hosts && test "$(stat -f -c %b /dev/shm)" = 512 && test "$(ulimit -n)" = 77
RUN --network=host readlink /proc/self/ns/net > /network
RUN --security=insecure grep CapEff /proc/self/status > /power
RUN echo 1 > /gone
RUN rm /gone
"""
LIMITS = {
    "memory/memory.limit_in_bytes": "67108864", "cpu/cpu.shares": "300",
    "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000",
    "cpuset/cpuset.cpus": "0", "cpuset/cpuset.mems": "0",
}  # fmt: skip


def test_what_steps_and_the_image_get(ketch: Engine, tmp_path: pathlib.Path, run_name: str) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT)
    done = ketch(
        "build", "--add-host", "there:192.0.2.9", "--shm-size", "2m", "--ulimit", "nofile=77:88",
        "--allow", "network.host", "--allow", "security.insecure", "--squash", "--compress",
        "--force-rm", "--load", "--platform", "linux/amd64", "--isolation", "default",
        "-t", f"{run_name}-options", "--progress", "plain", str(tmp_path),
    )  # fmt: skip
    assert done.status == 0, str(done)
    image = f"{run_name}-options"
    try:
        (found,) = json.loads(ketch.ok("inspect", image))
        assert len(found["RootFS"]["Layers"]) == 2  # the base's, and all others in one
        assert ketch.ok("run", "--rm", image, "cat", "/network") == os.readlink("/proc/self/ns/net")
        power = ketch.ok("run", "--rm", image, "cat", "/power").split()[-1]
        assert int(power, 16) & 1 << 21  # CAP_SYS_ADMIN
    finally:
        ketch("rmi", image)


@pytest.mark.root_engine("cgroup v1 gives ordinary users none")
def test_limits(ketch: Engine, tmp_path: pathlib.Path, run_name: str) -> None:
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        pytest.skip("cgroup v1 has these names")
    shown = " ".join(f"/sys/fs/cgroup/{name}" for name in LIMITS)
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN cat {shown}; sleep 1\n")
    done = ketch(
        "build", "--no-cache", "--progress", "plain", "--memory", "64m", "--memory-swap", "96m",
        "--cpu-shares", "300", "--cpu-quota", "50000", "--cpu-period", "100000",
        "--cpuset-cpus", "0", "--cpuset-mems", "0", "--cgroup-parent", f"/{run_name}",
        str(tmp_path),
    )  # fmt: skip
    assert done.status == 0, str(done)
    said = re.findall(r"^#\d+ [\d.]+ (\d+)$", done.err, re.MULTILINE)
    assert said == list(LIMITS.values())
    assert not os.path.exists(f"/sys/fs/cgroup/memory/{run_name}")


def test_what_is_attested_and_annotated(ketch: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    layout = tmp_path / "layout"
    ketch.ok(
        "build", "--attest", "type=provenance,mode=max", "--annotation", "index:x=y",
        "--annotation", "z=1", "-o", f"type=oci,tar=false,dest={layout}", str(tmp_path),
    )  # fmt: skip

    def blob(of: Any) -> Any:
        path = layout / "blobs" / "sha256" / of["digest"].removeprefix("sha256:")
        return json.loads(path.read_text())

    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    index = blob(entry)
    assert index["annotations"] == {"x": "y"}
    image, attestation = (blob(one) for one in index["manifests"])
    assert image["annotations"] == {"z": "1"}
    (statement,) = attestation["layers"]
    about = blob(statement)["predicate"]
    assert about["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["source"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sbom=true"], "an SBOM is made by a scanner, and none is named"),
        (["--progress", "bad"], "invalid progress mode bad"),
        (["--allow", "everything"], "everything"),
        (["--isolation", "hyperv"], "hyperv"),
        (["--platform", "bad/bad/bad/bad"], "bad/bad/bad/bad"),
        (["--cache-to", "type=gha"], "gha"),
        (["--output", "type=other"], "other"),
        (["--secret", "id=a,src=/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_is_refused(
    ketch: Engine, tmp_path: pathlib.Path, options: list[str], said: str
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    done = ketch("build", *options, str(tmp_path))
    assert done.status != 0
    assert said in done.err


def test_what_a_step_itself_asks_for(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """What is more than steps have by themselves wants to be allowed."""
    allowed = ["--allow", "security.insecure", "--allow", "device=vendor.com/none=a"]

    def built(step: str, *words: str) -> str:
        (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN {step}\n")
        done = ketch("build", "--progress=plain", "-o", "type=cacheonly", *words, str(tmp_path))
        assert done.status in {0, 1}
        said = re.findall(r"^#\d+ \d[\d.]+ (.*)$", done.err, re.MULTILINE)
        return " ".join(said) if done.status == 0 else done.err

    assert built("--network=none ls /sys/class/net") == "lo"
    assert built("ls /sys/class/net") != "lo"
    assert built("grep CapEff /proc/self/status").split() == ["CapEff:", "00000000a80425fb"]
    privileged = "--security=insecure mount -t tmpfs none /tmp && echo mounted"
    assert built(privileged, *allowed) == "mounted"
    assert "security.insecure is not allowed" in built(privileged)
    device = "--device=vendor.com/none=a{} echo done"
    assert built(device.format(",required=false"), *allowed) == "done"
    assert "required device" in built(device.format(",required=true"), *allowed)
    assert "vendor.com/none=a is requested by the build but not allowed" in built(
        device.format(",required=false")
    )
    short = "head -c 100000000 /dev/zero | tail -c 99999999 >/dev/null; exit 4"
    assert "cannot allocate memory" in built(short, "--memory=32m")
    assert "exit code: 4" in built("exit 4", "--memory=32m")


def test_one_build_for_several_platforms(ketch: Engine, tmp_path: pathlib.Path) -> None:
    for machine in ("amd64", "s390x"):
        (tmp_path / machine).write_text(machine)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n")
    layout, files = tmp_path / "layout", tmp_path / "files"
    built = ketch.ok(
        "build", "-q", "--platform", "linux/amd64,linux/s390x", "-o",
        f"type=oci,tar=false,dest={layout}", "-o", f"type=local,dest={files}",
        "--iidfile", f"{tmp_path}/id", str(tmp_path),
    )  # fmt: skip
    assert built == (tmp_path / "id").read_text()  # of what is in no store as well
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["digest"] == built
    index = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
    assert [one["platform"] for one in index["manifests"]] == [
        {"architecture": machine, "os": "linux"} for machine in ("amd64", "s390x")
    ]
    assert {path.parent.name: path.read_text() for path in files.glob("*/arch")} == {
        "linux_amd64": "amd64", "linux_s390x": "s390x",
    }  # fmt: skip


def test_a_stage_begins_with_a_whole_context(ketch: Engine, tmp_path: pathlib.Path) -> None:
    context, other, out = (tmp_path / name for name in ("context", "other", "out"))
    context.mkdir()
    (other / "d").mkdir(parents=True)
    (other / "d" / "f").write_text("there")
    (context / "Dockerfile").write_text("FROM files\nCOPY --from=files d/f /g\n")
    ketch.ok("build", "-q", "--build-context", f"files={other}", "-o", str(out), str(context))
    assert {str(path.relative_to(out)) for path in out.rglob("*")} == {"d", "d/f", "g"}
    assert (out / "g").read_text() == "there"
