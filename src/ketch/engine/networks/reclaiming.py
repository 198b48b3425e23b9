"""Bridges of engines that are no more: who made one, whether that one is gone, and what then.

An engine whose root directory was deleted has nobody who would take its bridges away, and their
subnets would be missing for ever. So each bridge says whose it is (ifalias, ip-link(8)), and who
looks for a subnet deletes those that are surely nobody's: with no port, and made from where the
caller is as well, for a root that is missing on the very file system on which it was. A root that
is not mounted, or lies in another mount namespace, is not missed.

Should an engine be wronged nevertheless, its next start makes the bridge anew, as after a reboot.
"""

import contextlib
import os

from ketch.errors import KetchError
from ketch.linux import rtnetlink
from ketch.network import bridge as bridges
from ketch.network import firewall
from ketch.network.bridge import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.settings import Settings
    from ketch.network.parent import Parent

_PREFIX = "ketch root"
_ALIAS_BYTES_MAX = 255  # linux/if.h: IFALIASZ counts the final zero byte


def make(settings: "Settings", links: "Iterable[Bridge | Parent]") -> None:
    """Make the bridges among some links that are not there.

    Raises:
        KetchError, OSError: the kernel refused.
    """
    new = [
        link
        for link in links
        if isinstance(link, Bridge) and not link.kept and not bridges.exists(link.name)
    ]
    if new:
        with rtnetlink.Socket() as host:
            for link in new:
                bridges.ensure(host, link, alias(settings))


def alias(settings: "Settings") -> str:
    """Returns what an engine's bridges say of themselves.

    Of some with long paths nothing: whether such a root is gone cannot be told.
    """
    said = _alias(settings.root)
    return said if len(os.fsencode(said)) <= _ALIAS_BYTES_MAX else ""


def reclaim() -> list[str]:
    """Delete bridges of engines that are gone; to be called by whose turn it is to choose.

    Returns:
        Their names.
    """
    gone = []
    with rtnetlink.Socket() as host:
        links = host.links()
        busy = {link.master for link in links}
        for link in links:
            if link.kind == "bridge" and link.index not in busy and _is_gone(link.alias):
                known = bridges.read(host, link.name)
                host.attempt(rtnetlink.delete_link(link.index))
                gone.append(link.name)
                with contextlib.suppress(KetchError):  # what is left of it there harms nobody
                    firewall.forget(link.name, known)
    return gone


def made_by(settings: "Settings") -> list[str]:
    """Names of the bridges that an engine has made, as far as they say so."""
    with rtnetlink.Socket() as host:
        return [one.name for one in host.links() if one.alias == _alias(settings.root)]


def _alias(root: str) -> str:
    """Whose a bridge is: from where it was made, on which device its root is, and where."""
    return f"{_PREFIX} {_place()} {os.stat(root).st_dev} {root}"


def _place() -> str:
    """From where paths are seen: the mount namespace, and the root directory in it."""
    facts = os.stat("/")
    return f"{os.stat('/proc/self/ns/mnt').st_ino}-{facts.st_dev}-{facts.st_ino}"


def _is_gone(alias: str) -> bool:
    if not alias.startswith(f"{_PREFIX} {_place()} "):
        return False
    device, _, root = alias.removeprefix(f"{_PREFIX} {_place()} ").partition(" ")
    if not os.path.isabs(root):
        return False
    try:
        os.lstat(root)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    else:
        return False
    while True:
        root = os.path.dirname(root)
        try:
            return str(os.stat(root).st_dev) == device
        except FileNotFoundError:
            continue
        except OSError:
            return False
