"""Which calls are answered in the kernel's place."""

from typing import Any

from ketch.spec import standing_in

CAPABILITIES = ["CAP_CHOWN", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID"]


def actions(section: Any) -> dict[str, str]:
    return {name: rule["action"] for rule in section["syscalls"] for name in rule["names"]}


def test_rules_take_the_place_of_those_that_allow() -> None:
    given: Any = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["read", "chown", "setuid"], "action": "SCMP_ACT_ALLOW"},
                     {"names": ["mknod"], "action": "SCMP_ACT_ALLOW"}],
    }  # fmt: skip
    found = actions(standing_in.section(given, CAPABILITIES, []))
    assert found["read"] == "SCMP_ACT_ALLOW"
    assert found["chown"] == found["mknod"] == "SCMP_ACT_NOTIFY"
    assert found["setuid"] == found["setgroups"] == "SCMP_ACT_ERRNO"
    # Whoever lacks the capability hears of it from the kernel.
    names = ["read", "chown", "setuid", "mknod"]
    assert actions(standing_in.section(given, [], [])) == dict.fromkeys(names, "SCMP_ACT_ALLOW")


def test_who_has_no_filter_gets_one_that_allows_the_rest() -> None:
    section = standing_in.section(None, CAPABILITIES, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert section["defaultAction"] == "SCMP_ACT_ALLOW"
    assert section["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert actions(section)["fchownat"] == "SCMP_ACT_NOTIFY"


def test_a_supervisor_of_its_own_stays() -> None:
    given: Any = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/own",
                  "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}  # fmt: skip
    assert standing_in.asks(given)
    found = actions(standing_in.section(given, CAPABILITIES, []))
    assert found["mkdir"] == "SCMP_ACT_NOTIFY"
    assert "chown" not in found
    assert found["setuid"] == "SCMP_ACT_ERRNO"
