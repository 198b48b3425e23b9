"""What a process does to itself or to its namespaces, one thing each, in words and in deed."""

import errno
import os

from ketch.errors import SyscallError, UnsupportedError
from ketch.linux import keyring, loopback, uts
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Step(Protocol):
        """Something that a process does to itself or to its namespaces."""

        def describe(self) -> Told:
            """What it does."""

        def execute(self) -> None:
            """Do it."""


class SetHostName:
    """Set ``hostname``."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def describe(self) -> Told:
        """What the step does, in words, with its system call."""
        words = f"host name {self._name} · sethostname(2)"
        return Told("namespaces", words, inside=[f"hostname {self._name}"])

    def execute(self) -> None:
        """Do it."""
        uts.set_host_name(self._name)


class SetDomainName:
    """Set ``domainname``."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def describe(self) -> Told:
        """What the step does, in words, with its system call."""
        words = f"domain name {self._name} · setdomainname(2)"
        return Told("namespaces", words, inside=[f"domainname {self._name}"])

    def execute(self) -> None:
        """Do it."""
        uts.set_domain_name(self._name)


class SwitchLoopbackOn:
    """Switch on the loopback interface of a new network namespace, as runc does."""

    __slots__ = ()

    def describe(self) -> Told:
        """What the step does, in words, with its system call."""
        words = "switch the loopback interface on · netdevice(7) SIOCSIFFLAGS"
        return Told("network", words, inside=["ip link set lo up"])

    def execute(self) -> None:
        """Do it."""
        loopback.switch_on()


class JoinKeyring:
    """Give the container a session keyring of its own, so that the caller's keys stay outside.

    Processes that ``exec`` adds join it by its name.

    Args:
        container_id: the container's identifier.
        in_user_namespace: whether its processes have a user namespace of their own.
    """

    __slots__ = ("_name", "_permissions")

    def __init__(self, container_id: str, *, in_user_namespace: bool) -> None:
        self._name = f"_ses.{container_id}"
        # What runc allows: without it a program that has changed its user could not look into it.
        self._permissions = keyring.OTHER_SEARCH if in_user_namespace else keyring.USER_SEARCH

    def describe(self) -> Told:
        """What the step does, in words, with its system call."""
        words = f"session keyring {self._name} · keyctl(2) KEYCTL_JOIN_SESSION_KEYRING"
        return Told("privileges", words)

    def execute(self) -> None:
        """Do it; where nobody can use keyrings there is nothing to keep apart.

        Raises:
            UnsupportedError: the user has no room for another keyring, or may make none.
        """
        try:
            keyring.allow(keyring.join_session(self._name), self._permissions)
        except SyscallError as error:
            if error.errno == errno.ENOSYS:
                return
            if error.errno == errno.EPERM:
                # By a filter around us, such as Docker's, which holds in the container as well.
                if keyring.is_denied():
                    return
                raise UnsupportedError(
                    "a system call filter denies keyctl(2), and the caller's keys would be within"
                    " the container's reach",
                    "go without a keyring of its own (--no-new-keyring)",
                ) from error
            raise UnsupportedError(
                f"session keyring {self._name}: {os.strerror(error.errno or 0).lower()}",
                "raise /proc/sys/kernel/keys/maxkeys, or go without (--no-new-keyring)",
            ) from error
