import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from ketch.linux import capabilities as kernel
from ketch.spec import capabilities as names

pytestmark = pytest.mark.root


def in_child(function: Callable[[], Any]) -> Any:
    """What ``function`` returns, or the text of what it raises, in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 the parent asserts on it
            result = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return json.loads(answer)


def status_sets() -> dict[str, int]:
    with open("/proc/self/status") as stream:
        fields = dict(line.split(":", 1) for line in stream)
    return {name: int(fields[f"Cap{name}"], 16) for name in ("Bnd", "Eff", "Prm", "Inh", "Amb")}


def test_reading_agrees_with_proc() -> None:
    shown = status_sets()
    assert kernel.get() == (shown["Eff"], shown["Prm"], shown["Inh"])
    assert kernel.available() == shown["Prm"] & shown["Bnd"]


def test_the_table_names_what_this_kernel_has() -> None:
    with open("/proc/sys/kernel/cap_last_cap") as stream:
        assert int(stream.read()) < len(names.NAMES)


def test_restricting_to_nothing_leaves_nothing() -> None:
    def become() -> int:
        kernel.restrict(0)
        return status_sets()["Bnd"]

    assert in_child(become) == 0


def test_docker_defaults_for_root() -> None:
    wanted = names.DEFAULT & kernel.available()

    def become() -> dict[str, int]:
        kernel.restrict(wanted)
        kernel.apply(wanted, wanted, 0, 0)
        return status_sets()

    assert in_child(become) == {"Bnd": wanted, "Eff": wanted, "Prm": wanted, "Inh": 0, "Amb": 0}


def test_capabilities_survive_the_change_of_user() -> None:
    bounding = names.mask(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"])
    ambient = names.mask(["CAP_NET_RAW"])

    def become() -> dict[str, int]:
        kernel.restrict(bounding)
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        kernel.apply(bounding, bounding, ambient, ambient)
        return status_sets()

    assert in_child(become) == {
        "Bnd": bounding, "Eff": bounding, "Prm": bounding, "Inh": ambient, "Amb": ambient,
    }  # fmt: skip


def test_ambient_passes_through_exec_and_permitted_alone_does_not() -> None:
    def become() -> str:
        kernel.restrict(names.mask(["CAP_KILL", "CAP_NET_RAW"]))
        os.setresuid(65534, 65534, 65534)
        both = names.mask(["CAP_KILL", "CAP_NET_RAW"])
        kernel.apply(both, both, both, names.mask(["CAP_NET_RAW"]))
        with os.popen("/bin/grep CapEff /proc/self/status") as stream:
            return stream.read()

    assert int(in_child(become).split()[1], 16) == names.mask(["CAP_NET_RAW"])


def test_gaining_is_refused_and_says_what() -> None:
    def become() -> None:
        kernel.restrict(names.mask(["CAP_KILL"]))
        kernel.apply(0, 0, 0, 0)
        kernel.apply(1, 1, 0, 0)

    assert "capset(effective 0x1, permitted 0x1, inheritable 0x0)" in in_child(become)


def test_what_cannot_be_granted_is_left_out_and_named() -> None:
    available = kernel.available()
    wanted = list(names.NAMES)
    sets, warnings = names.resolve(
        {"bounding": wanted, "permitted": wanted, "effective": wanted}, available
    )

    def become() -> dict[str, int]:
        kernel.restrict(sets.bounding)
        kernel.apply(sets.effective, sets.permitted, sets.inheritable, sets.ambient)
        return status_sets()

    assert in_child(become)["Eff"] == available
    missing = len(names.NAMES) - available.bit_count()
    assert len(warnings) == 3 * missing
