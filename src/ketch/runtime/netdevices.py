"""Moving the host's network interfaces into the container: ``linux.netDevices``.

An interface comes down as it moves and loses its addresses and routes; what it had of global
scope is given to it again, and it is switched on.

Source: runtime-spec config-linux.md "Network Devices"; rtnetlink(7), IFLA_NET_NS_FD.
"""

import errno
import os

from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError, SyscallError
from ketch.linux import namespaces, rtnetlink
from ketch.linux.scopes import owned
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import NetDevice
    from ketch.spec.told import Say


def move(devices: "dict[str, NetDevice]", namespace: int, say: "Say | None") -> None:
    """Move interfaces from the caller's network namespace into another.

    Args:
        devices: by their names here, with their names there.
        namespace: descriptor of the container's network namespace.
        say: takes what is told of each step.

    Raises:
        NotFoundError: there is no such interface.
        ConflictError: the name is taken in the container.
        InvalidArgumentError: the interface cannot leave its namespace.
    """
    with rtnetlink.Socket() as here, _socket_of(namespace) as there:
        for name, settings in devices.items():
            new_name = settings.get("name") or name
            if say:
                words = f"move interface {name} in, as {new_name} · rtnetlink(7) RTM_NEWLINK"
                say(Told("network", words))
            _move(here, there, name, new_name, namespace)


def _move(
    here: rtnetlink.Socket, there: rtnetlink.Socket, name: str, new_name: str, namespace: int
) -> None:
    field = f"linux.netDevices.{name}"
    link = here.link(name)
    if link is None:
        raise NotFoundError(f"{field}: there is no interface {name}", "ip link lists what there is")
    addresses = [
        address
        for address in here.addresses(link.index)
        if not (address.is_link_local or address.is_loopback)
    ]
    before = {present.name for present in there.links()}
    if new_name in before:
        raise ConflictError(f"{field}: the container already has an interface {new_name}")
    try:
        here.execute(rtnetlink.set_link(link.index, name=new_name, namespace=namespace))
    except SyscallError as error:
        if error.errno == errno.EEXIST:
            raise ConflictError(
                f"{field}: the container already has an interface {new_name}"
            ) from error
        raise InvalidArgumentError(
            f"{field}: {name} cannot be moved: {os.strerror(error.errno or 0).lower()}",
            "some interfaces, such as loopback, belong to their namespace for good",
        ) from error
    # The kernel keeps the index where it is free, and fills in the number of a name like eth%d.
    moved = next(present for present in there.links() if present.name not in before)
    there.execute(
        *(rtnetlink.add_address(moved.index, address) for address in addresses),
        rtnetlink.set_link(moved.index, up=True),
    )


def _socket_of(namespace: int) -> rtnetlink.Socket:
    """A socket that speaks to another namespace; the caller, of one thread, steps in and back."""
    with owned(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
        namespaces.setns(namespace, namespaces.CLONE_NEWNET)
        try:
            return rtnetlink.Socket()
        finally:
            namespaces.setns(home, namespaces.CLONE_NEWNET)
