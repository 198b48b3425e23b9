import copy
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import capabilities
from ketch.spec.seccomp import parse, to_oci
from ketch.spec.seccomp_default import default_profile

REFERENCE = pathlib.Path(__file__).parents[2] / "reference/docker_seccomp.json"
DEFAULT_CAPABILITIES = capabilities.to_names(capabilities.DEFAULT)


def docker_profile() -> dict[str, Any]:
    """Docker's default profile, with ``socketcall`` refused as it was when nothing else did that.

    Its rules for ``socket`` compare 64 bits where the kernel looks at 32: see below for ketch's.
    Its table has a rule's names in one text.
    """
    profile: dict[str, Any] = json.loads(REFERENCE.read_bytes())
    s390 = {"arches": ["s390", "s390x"]}
    rules = [{**rule, "names": rule["names"].split()} for rule in profile["syscalls"]]
    rules[0]["names"].remove("socketcall")
    at = next(place for place, rule in enumerate(rules) if rule["names"] == ["socket"])
    rules = [rule for rule in rules if rule["names"] != ["socket"]]
    rules[at:at] = [rule for rule in default_profile()["syscalls"] if rule["names"] == ["socket"]]
    refused = {"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    kept = {"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}
    return {
        **profile,
        "syscalls": [{**refused, "excludes": s390}, {**kept, "includes": s390}, *rules],
    }


def facts(profile: dict[str, Any]) -> set[tuple[str, ...]]:
    """One entry a system call and rule; order, empty fields and comments do not count."""

    def text(value: object) -> str:
        return json.dumps(value or None, sort_keys=True)

    return {
        (
            name, rule["action"], text(rule.get("errnoRet")), text(rule.get("args")),
            text(rule.get("includes")), text(rule.get("excludes")),
        )
        for rule in profile["syscalls"]
        for name in rule["names"]
    }  # fmt: skip


def test_the_default_profile_is_dockers() -> None:
    reference = docker_profile()
    ours = default_profile()
    assert facts(ours) == facts(reference)
    assert ours["defaultAction"] == reference["defaultAction"]
    assert ours["defaultErrnoRet"] == reference["defaultErrnoRet"]
    assert ours["archMap"] == [
        {**entry, "subArchitectures": entry["subArchitectures"] or []}
        for entry in reference["archMap"]
    ]
    assert set(reference) == set(ours)


def test_the_default_profile_is_of_the_shape_that_is_asked_of_others() -> None:
    assert parse(json.dumps(default_profile())) == default_profile()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "s390x", "riscv64", "ppc64le", "weird"])
@pytest.mark.parametrize("release", ["3.10.0-1160.el7.x86_64", "4.8.0", "6.18.2"])
@pytest.mark.parametrize("held", [[], DEFAULT_CAPABILITIES, list(capabilities.NAMES)])
def test_both_profiles_become_the_same_section(machine: str, release: str, held: list[str]) -> None:
    theirs = to_oci(parse(json.dumps(docker_profile())), held, machine, release)
    ours = to_oci(default_profile(), held, machine, release)
    assert ours is not None
    assert theirs is not None
    assert facts(dict(ours)) == facts(dict(theirs))
    assert ours.get("architectures") == theirs.get("architectures")


def names_allowed(held: list[str], machine: str = "x86_64", release: str = "6.1.0") -> set[str]:
    section = to_oci(default_profile(), held, machine, release)
    assert section is not None
    return {
        name
        for rule in section["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }


def test_capabilities_open_system_calls() -> None:
    assert "mount" not in names_allowed(DEFAULT_CAPABILITIES)
    assert "mount" in names_allowed(["CAP_SYS_ADMIN"])
    assert "clone3" in names_allowed(["CAP_SYS_ADMIN"])
    assert "chroot" in names_allowed(DEFAULT_CAPABILITIES)
    assert "keyctl" not in names_allowed(list(capabilities.NAMES))


def test_address_families_are_told_by_their_32_bits() -> None:
    rules = [rule["args"] for rule in default_profile()["syscalls"] if rule["names"] == ["socket"]]
    assert {(arg["index"], arg["op"]) for (arg,) in rules} == {(0, "SCMP_CMP_MASKED_EQ")}
    for high in (0, 1 << 32, 0xFFFFFFFF << 32):
        for family in range(64):
            fits = [arg for (arg,) in rules if (high | family) & arg["value"] == arg["valueTwo"]]
            assert len(fits) == (0 if family in {38, 40} else 1), (high, family)


def test_socketcall_fails_before_any_other_rule() -> None:
    """Behind the rules for other calls of sockets, libseccomp would let it through for theirs."""
    for machine in ("x86_64", "i686", "aarch64", "mips64"):
        section = to_oci(default_profile(), DEFAULT_CAPABILITIES, machine, "6.1.0")
        assert section is not None
        assert section["syscalls"][0] == {
            "names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
        }  # fmt: skip
        assert "socketcall" not in names_allowed(list(capabilities.NAMES), machine)
    assert "socketcall" in names_allowed([], "s390x")


def test_clone3_fails_with_enosys_and_clone_is_masked() -> None:
    section = to_oci(default_profile(), DEFAULT_CAPABILITIES, "x86_64", "6.1.0")
    assert section is not None
    rules = [rule for rule in section["syscalls"] if {"clone", "clone3"} & set(rule["names"])]
    assert [(rule["names"], rule["action"], rule.get("errnoRet")) for rule in rules] == [
        (["clone"], "SCMP_ACT_ALLOW", None),
        (["clone3"], "SCMP_ACT_ERRNO", 38),
    ]
    assert rules[0]["args"] == [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}]


def test_kernel_and_architecture_open_system_calls() -> None:
    assert "ptrace" not in names_allowed([], release="4.7.10-generic")
    assert "ptrace" in names_allowed([], release="4.8")
    assert "ptrace" in names_allowed([], release="4.10-rc1")
    assert "arch_prctl" in names_allowed([])
    assert "arch_prctl" not in names_allowed([], machine="aarch64")
    assert "breakpoint" in names_allowed([], machine="aarch64")


def test_every_condition() -> None:
    def kept(**rule: Any) -> bool:
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", **rule}],
        }
        section = to_oci(parse(json.dumps(profile)), ["CAP_A", "CAP_B"], "x86_64", "5.10.3")
        assert section is not None
        return bool(section["syscalls"])

    assert kept(includes=None, excludes={})
    assert kept(includes={"caps": ["CAP_A", "CAP_B"], "arches": ["arm", "amd64"]})
    assert not kept(includes={"caps": ["CAP_A", "CAP_C"]})
    assert not kept(includes={"arches": ["arm"]})
    assert not kept(excludes={"caps": ["CAP_C", "CAP_B"]})
    assert kept(excludes={"caps": ["CAP_C"], "arches": ["arm"], "minKernel": "5.11"})
    assert not kept(excludes={"arches": ["amd64"]})
    assert not kept(excludes={"minKernel": "5.10"})
    assert kept(includes={"minKernel": "5.10"})
    assert not kept(includes={"minKernel": "6.0"})
    assert kept(includes={"minKernel": ""})


def test_fields_pass_through() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "defaultErrnoRet": 5,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "m",
        "future": {"ignored": True},
        "syscalls": [
            {"name": "socket", "action": "SCMP_ACT_NOTIFY", "comment": "old spelling"},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_TRACE",
                "errnoRet": 7,
                "args": [{"index": 1, "value": 2**64 - 1, "valueTwo": 3, "op": "SCMP_CMP_NE"}],
            },
        ],
    }
    assert to_oci(profile, [], "x86_64", "6.1") == {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "defaultErrnoRet": 5,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "m",
        "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_NOTIFY"},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_TRACE",
                "errnoRet": 7,
                "args": [{"index": 1, "value": 2**64 - 1, "op": "SCMP_CMP_NE", "valueTwo": 3}],
            },
        ],
    }


def test_an_empty_profile_confines_nothing() -> None:
    assert to_oci({}, [], "x86_64", "6.1") is None
    nothing = parse('{"syscalls": null, "defaultAction": ""}')
    assert to_oci(nothing, [], "x86_64", "6.1") is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "Decoding seccomp profile failed"),
        ("{", "Decoding seccomp profile failed"),
        ("[" * 100000, "Decoding seccomp profile failed"),
        ("[]", "the profile"),
        ('{"syscalls": [{}]}', "defaultAction"),
        ('{"defaultAction": "ALLOW"}', "defaultAction"),
        ('{"defaultAction": 7}', "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": -1}', "defaultErrnoRet"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": true}', "defaultErrnoRet"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}', "flags[0]"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}', "syscalls"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]}', "syscalls[0]"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X86"]}', "architectures[0]"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}]}', "archMap[0].architecture"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW",'
            ' "syscalls": [{"names": ["read", ""], "action": "SCMP_ACT_ERRNO"}]}',
            "syscalls[0].names",
        ),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW",'
            ' "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}',
            "syscalls[0].names",
        ),
    ],
)
def test_malformed_profiles_name_the_field(text: str, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        to_oci(parse(text), [], "x86_64", "6.1")
    assert field in caught.value.message


ARGUMENT = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"action": "SCMP_ACT_ALLOW"}, "syscalls[0].names"),
        ({"names": []}, "syscalls[0].names"),
        ({"names": ["a", 1]}, "syscalls[0].names[1]"),
        ({"name": "a", "names": ["a"]}, "syscalls[0].name"),
        ({"names": ["a"], "action": "SCMP_ACT_NONE"}, "syscalls[0].action"),
        ({"names": ["a"], "errnoRet": 2**32}, "syscalls[0].errnoRet"),
        ({"names": ["a"], "args": [{**ARGUMENT, "index": 6}]}, "syscalls[0].args[0].index"),
        ({"names": ["a"], "args": [{**ARGUMENT, "value": 1.5}]}, "syscalls[0].args[0].value"),
        ({"names": ["a"], "args": [{"index": 0, "value": 1}]}, "syscalls[0].args[0].op"),
        ({"names": ["a"], "args": [{"index": 0, "value": 1, "op": "EQ"}]}, "args[0].op"),
        ({"names": ["a"], "includes": []}, "syscalls[0].includes"),
        ({"names": ["a"], "includes": [1]}, "syscalls[0].includes"),
        ({"names": ["a"], "includes": {"caps": "CAP_A"}}, "syscalls[0].includes.caps"),
        ({"names": ["a"], "excludes": {"minKernel": "6"}}, "syscalls[0].excludes.minKernel"),
        ({"names": ["a"], "includes": {"minKernel": "6.1.2"}}, "syscalls[0].includes.minKernel"),
        ({"names": ["a"], "includes": {"minKernel": "0.0"}}, "syscalls[0].includes.minKernel"),
        ({"names": ["a"], "includes": {"minKernel": "6.\u00b2"}}, "syscalls[0].includes.minKernel"),
        ({"names": ["a"], "includes": {"minKernel": "6.1000"}}, "syscalls[0].includes.minKernel"),
    ],
)
def test_malformed_rules_name_the_field(rule: dict[str, Any], field: str) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"action": "SCMP_ACT_ALLOW", **rule}],
    }
    with pytest.raises(InvalidArgumentError) as caught:
        to_oci(parse(json.dumps(profile)), [], "x86_64", "6.1")
    assert field in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:3])
    else:
        return found
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


EXAMPLE = default_profile()
EXAMPLE["syscalls"][0]["names"] = ["read", "write"]
PLACES = places(EXAMPLE)


@given(st.sampled_from(PLACES), JSON)
def test_any_malformed_profile_is_refused_cleanly(place: tuple[Any, ...], value: Any) -> None:
    profile = copy.deepcopy(EXAMPLE)
    target: Any = profile
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    try:
        section = to_oci(parse(json.dumps(profile)), ["CAP_SYS_ADMIN"], "x86_64", "6.1.0")
    except InvalidArgumentError:
        return
    assert section is None or section["defaultAction"]
