"""How much each of several askers may have of what all have together."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable


class Shares:
    """What is out, by who has it.

    One asker may have much while there is much, and never so much that another one gets nothing.

    Args:
        total: how much may be out, beside what each is sure of.
        own: how much one asker may have.
        sure: how much one gets whatever the others have.
    """

    __slots__ = ("_by_asker", "_out", "_own", "_sure", "_total")

    def __init__(self, total: int, own: int, sure: int) -> None:
        self._total, self._own, self._sure = total, own, sure
        self._out = 0
        self._by_asker: dict[Hashable, int] = {}

    def take(self, asker: "Hashable") -> bool:
        """Take one, to be given back; returns whether there is one for this asker."""
        has = self._by_asker.get(asker, 0)
        if has >= self._own or (has >= self._sure and self._out >= self._total):
            return False
        self._by_asker[asker] = has + 1
        self._out += 1
        return True

    def give(self, asker: "Hashable") -> None:
        """Give one back."""
        self._out -= 1
        self._by_asker[asker] -= 1
        if not self._by_asker[asker]:
            del self._by_asker[asker]

    def of(self, asker: "Hashable") -> int:
        """Returns how much an asker has."""
        return self._by_asker.get(asker, 0)
