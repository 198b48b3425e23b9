"""Make the tables beside this file from what others publish: facts alone, no prose.

    python tests/reference/extract.py SPECIFICATIONS [HEADERS]

SPECIFICATIONS holds ``oci-runtime/*.json`` and ``oci-image/*.json``, the schemas of those
specifications; ``docker/engine-api-v1.50.yaml``, the description of Docker's Engine API; and
``docker/seccomp-default.json``, Docker's default seccomp profile. HEADERS is the directory with the
kernel's ``unistd_64.h``, ``unistd_32.h`` and ``unistd_x32.h``. Tests read the tables, never these.
"""

import json
import pathlib
import re
import sys
from typing import Any

import yaml  # type: ignore[import-untyped]

HERE = pathlib.Path(__file__).parent
HEADERS = "/usr/include/x86_64-linux-gnu/asm"
_PROSE = {
    "description", "title", "summary", "example", "examples", "externalDocs", "tags", "info",
    "$schema", "id", "comment", "schemes", "operationId", "x-nullable", "x-go-name", "default",
}  # fmt: skip
# What a schema's fields are called is no prose, whatever they are called.
_NAMED = {"properties", "patternProperties", "definitions", "paths", "responses", "headers"}

# Docker's default capabilities.
_CAPABILITIES = """
    AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID
    SETPCAP SETUID SYS_CHROOT
"""
# Calls with one number everywhere that headers of an older kernel lack, up to Linux 6.18.
_NEWER = """
    cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
    lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
    removexattrat open_tree_attr file_getattr file_setattr
"""
_FIRST_NEWER = 451
_X32_BIT = 0x40000000


def facts(document: Any, *, named: bool = False) -> Any:
    """Return a document without what is written for people.

    Args:
        document: a schema, or a part of one.
        named: whether its keys are names that the schema gives, none of its own words.
    """
    if isinstance(document, list):
        return [facts(item) for item in document]
    if not isinstance(document, dict):
        return document
    kept = {
        key: facts(value, named=not named and key in _NAMED)
        for key, value in document.items()
        if named or key not in _PROSE
    }
    return {str(key): value for key, value in kept.items()}


def rules(profile: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a seccomp profile's rules, names in order, without empty fields."""
    return [
        {
            "names": " ".join(sorted(rule["names"])),
            **{key: value for key, value in facts(rule).items() if value and key != "names"},
        }
        for rule in profile["syscalls"]
    ]


def allowed(profile: dict[str, Any]) -> set[str]:
    """Return what Docker's default profile allows on x86, with Docker's default capabilities."""

    held = {f"CAP_{name}" for name in _CAPABILITIES.split()}

    def holds(rule: dict[str, Any]) -> bool:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        machines = includes.get("arches") or ["amd64"]
        return (
            rule["action"] == "SCMP_ACT_ALLOW"
            and "amd64" in machines
            and held.issuperset(includes.get("caps") or ())
            and not held & set(excludes.get("caps") or ())
            and "amd64" not in (excludes.get("arches") or ())
        )

    return {name for rule in profile["syscalls"] if holds(rule) for name in rule["names"]}


def calls(headers: pathlib.Path, profile: dict[str, Any]) -> list[str]:
    """Return a line a system call: its ABI, number, name, and what the profile says of it."""
    named = allowed(profile)
    lines = []
    for abi, file in (("x86_64", "unistd_64.h"), ("x86", "unistd_32.h"), ("x32", "unistd_x32.h")):
        found = re.findall(
            r"^#define __NR_(\w+) (?:\(__X32_SYSCALL_BIT \+ )?(\d+)\)?$",
            (headers / file).read_text("ascii"),
            re.MULTILINE,
        )
        numbers = {int(number): name for name, number in found}
        numbers |= dict(enumerate(_NEWER.split(), _FIRST_NEWER))
        for number, name in sorted(numbers.items()):
            # Refused by Docker until an AppArmor profile took over, which not every host has.
            kept = name in named and name != "socketcall"
            lines.append(f"{abi} {number} {name} {'allowed' if kept else 'refused'}")
    return lines


def write(name: str, document: dict[str, Any]) -> None:
    """Write a table: a line for each entry of its two upper floors."""
    lines = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{inner}\n }}")
        elif isinstance(value, list) and value:
            inner = ",\n".join(f"  {json.dumps(item)}" for item in value)
            lines.append(f"{json.dumps(key)}: [\n{inner}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    (HERE / name).write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")


def main(specifications: pathlib.Path, headers: pathlib.Path) -> None:
    """Make all tables anew."""
    for folder in ("oci-runtime", "oci-image"):
        schemas = {
            path.name: facts(json.loads(path.read_bytes()))
            for path in sorted((specifications / folder).glob("*.json"))
        }
        write(f"{folder.replace('-', '_')}.json", schemas)
    with (specifications / "docker/engine-api-v1.50.yaml").open(encoding="utf-8") as file:
        document = yaml.load(file, yaml.CSafeLoader)
    write("engine_api.json", {key: facts(document[key], named=True)
                              for key in ("paths", "definitions")})  # fmt: skip
    profile = json.loads((specifications / "docker/seccomp-default.json").read_bytes())
    write("docker_seccomp.json", {**facts(profile), "syscalls": rules(profile)})
    (HERE / "calls_x86.txt").write_text("\n".join(calls(headers, profile)) + "\n", "ascii")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2] if sys.argv[2:] else HEADERS))
