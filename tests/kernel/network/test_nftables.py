"""nft is fed, and the kernel asked."""

import os

import pytest

from ketch.errors import PermissionDeniedError, SyscallError, UnavailableError
from ketch.linux import namespaces, nftables
from ketch.linux.nftables import Element, Transaction

pytestmark = pytest.mark.root

SCRIPT = """\
add table inet example
add set inet example links { type ifname; }
add set inet example numbers { type mark; }
add chain inet example forward { type filter hook forward priority filter; policy drop; }
add chain inet example plain
add rule inet example forward counter accept comment "let through"
add rule inet example forward counter
add element inet example links { "eth0" }
"""


def load(script: str) -> None:
    Transaction(script, "example rules").wait()


def test_what_nft_wrote_is_read_from_the_kernel() -> None:
    with nftables.Socket() as kernel:
        keys = [("links", nftables.ifname("eth0")), ("links", nftables.ifname("eth1"))]
        assert kernel.present("inet", "example", keys) == [False, False]
        assert kernel.policy("inet", "example", "forward") is None
        load(SCRIPT)
        assert kernel.present("inet", "example", keys) == [True, False]
        assert kernel.present("inet", "example", [("nothing", keys[0][1])]) == [False]
        assert kernel.present("ip", "example", keys) == [False, False]
        assert kernel.policy("inet", "example", "forward") == nftables.NF_DROP
        assert kernel.policy("inet", "example", "plain") is None
        first, second = kernel.comments("inet", "example", "forward")
        assert b"let through" in first
        assert second == b""
        assert kernel.comments("inet", "example", "nothing") == []


def test_a_script_is_carried_out_whole_or_not_at_all() -> None:
    with pytest.raises(UnavailableError, match=r"(?s)example rules: .*No such file or directory"):
        load("add table inet example\nadd element inet example links { eth0 }\n")
    assert [entry for entry in nftables.listing("tables") if "table" in entry] == []


def test_a_syntax_error_is_told() -> None:
    with pytest.raises(UnavailableError, match="syntax error"):
        load("add nonsense\n")


def test_rules_are_listed_for_inspection() -> None:
    load(SCRIPT)
    names = {
        entry["chain"]["name"]
        for entry in nftables.listing("table", "inet", "example")
        if "chain" in entry
    }
    assert names == {"forward", "plain"}


def test_a_missing_nft_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_DIRECTORIES", ("/nonexistent",))
    with pytest.raises(UnavailableError, match=r"nft, which writes .* is not installed") as caught:
        load(SCRIPT)
    assert caught.value.hint == "apt-get install nftables"


def test_a_script_longer_than_a_pipe_is_no_problem() -> None:
    elements = ", ".join(str(number) for number in range(20000))
    load(f"{SCRIPT}add element inet example numbers {{ {elements} }}\n")
    with nftables.Socket() as kernel:
        key = (19999).to_bytes(4, "little")
        assert kernel.present("inet", "example", [("numbers", key)]) == [True]


def test_those_who_may_not_are_told(host: int) -> None:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            # The rules of a namespace belong to the user namespace that it was made in.
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            try:
                load(SCRIPT)
            except PermissionDeniedError:
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_elements_change_all_or_none() -> None:
    load(SCRIPT)
    one, two = (Element("links", nftables.ifname(name)) for name in ("one", "two"))
    with nftables.Socket() as kernel:

        def present() -> list[bool]:
            return kernel.present("inet", "example", [(each.name, each.key) for each in (one, two)])

        kernel.change("example", add=[one, two])
        kernel.change("example", add=[one])
        assert present() == [True, True]
        kernel.change("example", delete=[one], add=[two])
        assert present() == [False, True]
        with pytest.raises(SyscallError, match="No such file or directory"):
            kernel.change("example", delete=[two, one])
        assert present() == [False, True]
        many = [Element("numbers", number.to_bytes(4, "little")) for number in range(5000)]
        kernel.change("example", add=many)
        kernel.change("example", delete=many)
        kernel.change("example")


def test_a_map_leads_where_it_was_told() -> None:
    load("add table inet example\nadd map inet example m { type mark : mark; }\n")
    element = Element("m", bytes(4), (7).to_bytes(4, "little"), "what it is for")
    with nftables.Socket() as kernel:
        kernel.change("example", add=[element])
        with pytest.raises(SyscallError, match="File exists"):
            kernel.change("example", add=[Element("m", bytes(4), (8).to_bytes(4, "little"))])
    (shown,) = (entry["map"] for entry in nftables.listing("map", "inet", "example", "m")
                if "map" in entry)  # fmt: skip
    assert shown["elem"] == [[{"elem": {"val": 0, "comment": "what it is for"}}, 7]]
