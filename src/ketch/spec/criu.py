"""criu's requests and answers as bytes: the part of Protocol Buffers, and of its messages, needed.

A message is a dict by field name; a repeated field a list. Fields that are not named here are left
out when an answer is read.

Source: criu's images/rpc.proto; Protocol Buffers "Encoding".
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 4, 6, 9, 10
CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}
"""What is done with cgroups on restore, by runc's names; by default as ``soft``."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FEATURES = {"mem_track": (1, "bool"), "lazy_pages": (2, "bool")}
_OPTIONS = {
    "images_dir_fd": (1, "int"), "pid": (2, "int"), "leave_running": (3, "bool"),
    "ext_unix_sk": (4, "bool"), "tcp_established": (5, "bool"), "evasive_devices": (6, "bool"),
    "shell_job": (7, "bool"), "file_locks": (8, "bool"), "log_level": (9, "int"),
    "log_file": (10, "str"), "ps": (11, {"address": (1, "str"), "port": (2, "int")}),
    "notify_scripts": (12, "bool"), "root": (13, "str"), "parent_img": (14, "str"),
    "track_mem": (15, "bool"), "auto_dedup": (16, "bool"), "work_dir_fd": (17, "int"),
    "link_remap": (18, "bool"), "ext_mnt": (23, {"key": (1, "str"), "val": (2, "str")}),
    "manage_cgroups": (24, "bool"), "cg_root": (25, {"ctrl": (1, "str"), "path": (2, "str")}),
    "rst_sibling": (26, "bool"), "inherit_fd": (27, {"key": (1, "str"), "fd": (2, "int")}),
    "ext_masters": (30, "bool"), "manage_cgroups_mode": (34, "int"), "external": (37, "str"),
    "empty_ns": (38, "int"), "join_ns": (39, {"ns": (1, "str"), "ns_file": (2, "str")}),
    "freeze_cgroup": (44, "str"), "tcp_skip_in_flight": (46, "bool"), "lazy_pages": (48, "bool"),
    "status_fd": (49, "int"), "orphan_pts_master": (50, "bool"), "config_file": (51, "str"),
    "lsm_profile": (53, "str"), "lsm_mount_context": (63, "str"),
}  # fmt: skip
_REQUEST = {"type": (1, "int"), "opts": (2, _OPTIONS), "notify_success": (3, "bool"),
            "features": (5, _FEATURES)}  # fmt: skip
_RESPONSE = {
    "type": (1, "int"), "success": (2, "bool"), "restore": (4, {"pid": (1, "int")}),
    "notify": (5, {"script": (1, "str"), "pid": (2, "int")}), "errno": (7, "int"),
    "features": (8, _FEATURES),
    "version": (10, {"major": (1, "int"), "minor": (2, "int"), "sublevel": (4, "int")}),
}  # fmt: skip
_REPEATED = frozenset({"ext_mnt", "cg_root", "inherit_fd", "external", "join_ns"})


def request(fields: "dict[str, Any]") -> bytes:
    """A request's bytes."""
    return _encode(_REQUEST, fields)


def response(data: bytes) -> "dict[str, Any]":
    """Read an answer.

    Raises:
        ValueError: it is none.
    """
    return _decode(_RESPONSE, data)


def _encode(schema: "dict[str, Any]", fields: "dict[str, Any]") -> bytes:
    out = b""
    for name, value in fields.items():
        number, kind = schema[name]
        for each in value if name in _REPEATED else [value]:
            if kind in ("int", "bool"):
                out += _varint(number << 3 | _VARINT) + _varint(int(each))
            else:
                data = each.encode(errors="surrogateescape") if kind == "str" else (
                    _encode(kind, each)
                )  # fmt: skip
                out += _varint(number << 3 | _BYTES) + _varint(len(data)) + data
    return out


def _decode(schema: "dict[str, Any]", data: bytes) -> "dict[str, Any]":
    named = {number: (name, kind) for name, (number, kind) in schema.items()}
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        raw, at = _read_value(data, at, key & 7)
        name, kind = named.get(key >> 3, ("", ""))
        if not name:
            continue
        if isinstance(raw, int) != (kind in ("int", "bool")):
            raise ValueError(f"criu says {name} in another type than expected")
        value: Any = raw
        if isinstance(raw, bytes):
            value = raw.decode(errors="surrogateescape") if kind == "str" else _decode(kind, raw)
        elif kind == "bool":
            value = bool(raw)
        if name in _REPEATED:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative int32 takes ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("criu's answer is cut short")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            break
        shift += 7
    value &= (1 << 64) - 1
    return value - (1 << 64 if value >> 63 else 0), at


def _read_value(data: bytes, at: int, wire: int) -> "tuple[int | bytes, int]":
    if wire == _VARINT:
        return _read_varint(data, at)
    if wire == _BYTES:
        size, at = _read_varint(data, at)
    elif wire in {_FIXED64, _FIXED32}:
        size = 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"criu's answer has a field of wire type {wire}")
    if size < 0 or at + size > len(data):
        raise ValueError("criu's answer is cut short")
    return data[at : at + size], at + size
