"""The flags of one instruction: ``--name`` and ``--name=value``.

Source: github.com/moby/buildkit, frontend/dockerfile/instructions/bflag.go.
"""

from typing import TYPE_CHECKING

from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable


class Flags:
    """What was given of the flags that an instruction has.

    Args:
        given: as they are written.
        texts: names of those that have a value.
        lists: names of those that have a value and may be repeated.
        switches: names of those that are true or false.

    Raises:
        DockerfileError: one is unknown, repeated, or has no value or a wrong one.
    """

    def __init__(
        self,
        given: "Iterable[str]",
        texts: tuple[str, ...] = (),
        lists: tuple[str, ...] = (),
        switches: tuple[str, ...] = (),
    ) -> None:
        self._texts: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}
        self._switches: dict[str, bool] = {}
        for flag in given:
            spelt, equals, value = flag.partition("=")
            name = spelt[2:]
            if name not in {*texts, *lists, *switches}:
                hint = did_you_mean(name, (*texts, *lists, *switches))
                raise DockerfileError(f"unknown flag: {spelt}{hint}")
            if name in self._texts or name in self._switches:
                raise DockerfileError(f"duplicate flag specified: {spelt}")
            if name in switches:
                self._switches[name] = _truth(spelt, equals, value)
            elif not equals:
                raise DockerfileError(f"missing a value on flag: {spelt}")
            elif name in lists:
                self._lists.setdefault(name, []).append(value)
            else:
                self._texts[name] = value

    def text(self, name: str, default: str = "") -> str:
        """Returns a flag's value."""
        return self._texts.get(name, default)

    def list(self, name: str) -> tuple[str, ...]:
        """Returns the values of a flag that may be repeated."""
        return tuple(self._lists.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Returns whether a flag is true; None where it is not given."""
        return self._switches.get(name)


def _truth(spelt: str, equals: str, value: str) -> bool:
    if equals and not value:
        raise DockerfileError(f"missing a value on flag: {spelt}")
    if value.lower() in {"", "true"}:
        return True
    if value.lower() == "false":
        return False
    raise DockerfileError(f"expecting boolean value for flag {spelt}, not: {value}")
