"""Which routes hold for which packets: ip-rule(8), rtnetlink(7) RTM_NEWRULE.

Sources: linux/fib_rules.h, linux/rtnetlink.h.
"""

import _socket
import errno
import struct
from ipaddress import ip_network

from ketch.linux import netlink, rtnetlink
from ketch.linux.netlink import Request, u32

_RTM_NEWRULE = 32
_RULE = struct.Struct("=BBBBBBBBI")  # struct fib_rule_hdr
_FR_ACT_TO_TBL = 1
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16
_LOOPBACK_INDEX = 1
_FAMILIES = {4: int(_socket.AF_INET), 6: int(_socket.AF_INET6)}
_ONCE = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL


def take_in(version: int, mark: int, table: int, priority: int) -> list[Request]:
    """Have packets with a mark be this machine's own, whomever they are for; already so will do.

    Args:
        version: 4 or 6.
        mark: theirs.
        table: a routing table that nobody else uses, up to 255.
        priority: of the rule; the smallest is looked at first.
    """
    family = _FAMILIES[version]
    rule = _RULE.pack(family, 0, 0, 0, table, 0, 0, _FR_ACT_TO_TBL, 0) + b"".join(
        (
            u32(_FRA_PRIORITY, priority), u32(_FRA_FWMARK, mark), u32(_FRA_FWMASK, 0xFFFFFFFF),
            u32(_FRA_TABLE, table),
        )
    )  # fmt: skip
    return [
        rtnetlink.add_route(
            ip_network("0.0.0.0/0" if version == 4 else "::/0"),
            index=_LOOPBACK_INDEX, local=True, table=table,
        ),
        Request("RTM_NEWRULE", _RTM_NEWRULE, _ONCE, rule, f"table {table} for mark {mark:#x}",
                accept=(errno.EEXIST,)),
    ]  # fmt: skip
