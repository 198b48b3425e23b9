"""Networks without a bridge: macvlan and ipvlan links on one of the host's own.

See Documentation/networking/ipvlan.rst, and ip-link(8) for macvlan's modes. A link made for such a
network alone (a VLAN's, or a dummy where no parent was named) is made when it is missing.
"""

import errno

from ketch.errors import ConflictError, NotFoundError, SyscallError, UnsupportedError
from ketch.linux import rtnetlink
from ketch.linux.netlink import Request
from ketch.network import hardening
from ketch.spec.digits import decimal


class Parent:
    """What the links of a macvlan or ipvlan network are made on.

    Args:
        kind: ``macvlan`` or ``ipvlan``.
        name: the parent's name; ``eth0.50`` is the link of VLAN 50 on eth0.
        mode: one of rtnetlink.MACVLAN_MODES or IPVLAN_MODES.
        flag: one of rtnetlink.IPVLAN_FLAGS, for ipvlan.
        mtu_bytes: largest packet; the parent's where 0.
        dummy: whether the parent leads nowhere and is the network's own.
        made: whether it was made for a network, and so is nobody else's.
    """

    __slots__ = ("dummy", "flag", "kind", "made", "mode", "mtu_bytes", "name")

    def __init__(
        self,
        kind: str,
        name: str,
        mode: str,
        *,
        flag: str = "bridge",
        mtu_bytes: int = 0,
        dummy: bool = False,
        made: bool = False,
    ) -> None:
        self.kind = kind
        self.name = name
        self.mode = mode
        self.flag = flag
        self.mtu_bytes = mtu_bytes
        self.dummy = dummy
        self.made = made

    def ensure(self, host: rtnetlink.Socket) -> tuple[int, bool]:
        """Have the parent in the host.

        Returns:
            Its index, and whether it was made now.

        Raises:
            NotFoundError: there is no such link.
            UnsupportedError: the kernel cannot make it.
            UnavailableError: what the host must not learn by it cannot be switched off.
        """
        link = host.link(self.name)
        if link is not None:
            if self.dummy or self.made:
                hardening.harden(link)
            return link.index, False
        if self.dummy:
            return self._made(host, rtnetlink.add_dummy(self.name), "dummy"), True
        under, dot, tag = self.name.rpartition(".")
        number = decimal(tag, 4) or 0
        below = host.link(under) if dot and 0 < number < 4095 else None
        if below is None:
            raise NotFoundError(
                f"-o parent={self.name}: the requested parent interface was not found on this host",
                "look at the output of `ip link`",
            )
        request = rtnetlink.add_vlan(self.name, below.index, number)
        return self._made(host, request, "VLAN (8021q)"), True

    def attach(self, host: rtnetlink.Socket, interface: str, *, namespace: int, mac: str) -> None:
        """Make a container's link.

        Args:
            host: rtnetlink socket of the parent's namespace.
            interface: the link's name in the container.
            namespace: descriptor of the container's network namespace.
            mac: the link's address; an ipvlan link has its parent's.

        Raises:
            NotFoundError: the parent is not there.
            ConflictError: the parent is in another use that excludes this one.
            UnsupportedError: the kernel has no such links.
        """
        index, _ = self.ensure(host)
        if self.kind == "macvlan":
            request = rtnetlink.add_macvlan(
                interface, index, self.mode,
                namespace=namespace, mac=mac, mtu_bytes=self.mtu_bytes,
            )  # fmt: skip
        else:
            request = rtnetlink.add_ipvlan(
                interface, index, self.mode, self.flag,
                namespace=namespace, mtu_bytes=self.mtu_bytes,
            )  # fmt: skip
        failure = host.attempt(request)[0]
        if failure is None:
            return
        if failure.errno in {errno.EBUSY, errno.EINVAL}:
            raise ConflictError(
                f"link {self.name} cannot carry a {self.kind} link in mode {self.mode} "
                f"as it is used now: {failure}",
                "a parent serves macvlan or ipvlan, and one container where the mode is passthru",
            ) from failure
        raise _explained(failure, self.kind)

    def _made(self, host: rtnetlink.Socket, request: Request, what: str) -> int:
        failure = host.attempt(request)[0]
        if failure is not None:
            raise _explained(failure, what)
        link = host.link(self.name)
        if link is None:
            raise NotFoundError(f"link {self.name} was deleted while it was being made")
        hardening.harden(link)
        host.execute(rtnetlink.set_link(link.index, up=True))
        return link.index


def delete(host: rtnetlink.Socket, name: str) -> None:
    """Delete a parent that was made for a network; gone already will do."""
    link = host.link(name)
    if link is not None and link.kind in {"vlan", "dummy"}:
        host.attempt(rtnetlink.delete_link(link.index))


def _explained(failure: SyscallError, what: str) -> Exception:
    if failure.errno in {errno.EOPNOTSUPP, errno.ENOTSUP}:
        return UnsupportedError(
            f"this kernel has no {what} links", f"load or build the kernel module for {what}"
        )
    return failure
