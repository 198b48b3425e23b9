"""The key sequence that ends a terminal session without ending its program. Pure."""

DEFAULT = "ctrl-p,ctrl-q"


class DetachKeys:
    """Finds the detach sequence in what is typed, holding back what may be its beginning.

    Args:
        sequence: the bytes to look for; empty for never.
    """

    __slots__ = ("_held", "_sequence")

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = 0

    def filter(self, data: bytes) -> tuple[bytes, bool]:
        """Returns what to pass on, and whether the sequence is complete."""
        sequence = self._sequence
        if not sequence:
            return data, False
        passed = bytearray()
        for byte in data:
            seen = sequence[: self._held] + bytes((byte,))
            # A sequence may begin with its own beginning: a,a,b is in what a,a,a,b types.
            self._held = len(seen)
            while not sequence.startswith(seen[len(seen) - self._held :]):
                self._held -= 1
            passed += seen[: len(seen) - self._held]
            if self._held == len(sequence):
                return bytes(passed), True
        return bytes(passed), False


def parse_detach_keys(text: str) -> bytes:
    r"""Turn ``ctrl-p,ctrl-q`` into the bytes that a terminal sends.

    Raises:
        ValueError: a key is neither one character nor ``ctrl-`` and one of ``a-z@[\\]^_``.
    """
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            keys += key.encode()
        elif (
            key.startswith("ctrl-")
            and len(key) == 6
            and key[5] in "abcdefghijklmnopqrstuvwxyz@[\\]^_"
        ):
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            raise ValueError(key)
    return bytes(keys)
