"""The words of ``--uidmap`` and ``--gidmap``, as podman takes them. Pure.

``[FLAGS]INSIDE:[@]OUTSIDE[:COUNT]``: the flags ``u`` and ``g`` make it one of users or of groups
alone, ``+`` has what was said before give way, and ``@`` names ids of the machine in place of those
that the engine has in its own namespace. Source: podman-run(1), ``--uidmap``.
"""

import re

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Span = tuple[int, int, int]  # the first id inside, the first outside, how many

KINDS = {"u": "user", "g": "group"}
"""Of which ids a word can be, by the flag that says so."""

_WORD = re.compile(r"([+ug]*)([^:+ug]*):([^:]*)(?::([^:]*))?")
_PLAIN = re.compile(r"\+?([0-9]{1,10}):(@?)([0-9]{1,10}):([0-9]{1,10})")
_WORDS_MAX = 340  # as many ranges as a map may have, user_namespaces(7)
_END = 1 << 32


def of_kind(kind: str, own: "Sequence[str]", other: "Sequence[str]") -> str:
    """Returns what is said of users, or of groups, without the flags of kinds.

    Args:
        kind: of ``KINDS``.
        own: the words of the option for these.
        other: those of the other option, which count for both where this one has none.

    Raises:
        InvalidArgumentError: a word is none, or none is of this kind.
    """
    found = []
    for text in own or other:
        match = _WORD.fullmatch(text)
        if match is None:
            raise _malformed(text)
        flags, inside, outside, count = match.groups()
        kinds = set(flags) & KINDS.keys()
        if not kinds or kind in kinds:
            extends = "+" if "+" in flags else ""
            found.append(f"{extends}{inside}:{outside}:{'1' if count is None else count}")
    if not found:
        raise InvalidArgumentError(f"no {KINDS[kind]} ids are named for the container")
    return ",".join(found)


def is_open(text: str) -> bool:
    """Whether what ``of_kind`` returned means something else to each engine."""
    return "+" in text or "@" in text


def settled(kind: str, text: str, own: "Sequence[Span]", *, is_user: bool) -> "list[Span]":
    """Returns which ids the words come to, in order of those inside.

    Where an ordinary user's words begin with one that extends, the rest of the user's ids are
    there as well, from 0 on.

    Args:
        kind: of ``KINDS``.
        text: from ``of_kind``.
        own: the ids of the engine's namespace.
        is_user: whether that is an ordinary user's.

    Raises:
        InvalidArgumentError: a word is none, or the engine does not have an id of the machine's.
    """
    found: list[Span] = []
    fills = is_user and text.startswith("+")
    words = text.split(",")
    if len(words) > _WORDS_MAX:
        raise InvalidArgumentError(f"{len(words)} ranges of ids, at most {_WORDS_MAX} are possible")
    for word in words:
        for span in _spans(kind, word, own):
            if word.startswith("+"):
                found = [piece for one in found for piece in _without(one, span)]
            found.append(span)
    return joined(_filled(found, own) if fills else found)


def _spans(kind: str, word: str, own: "Sequence[Span]") -> "Iterator[Span]":
    """Yield what one word names, in the engine's own ids."""
    match = _PLAIN.fullmatch(word)
    if match is None:
        raise _malformed(word)
    inside, of_machine, outside, count = int(match[1]), match[2], int(match[3]), int(match[4])
    if not count or max(inside, outside) + count >= _END:
        raise _malformed(word)
    if not of_machine:
        yield inside, outside, count
        return
    end = outside + count
    for here, there, length in sorted(own, key=lambda one: one[1]):
        if there <= outside < min(there + length, end):
            size = min(there + length, end) - outside
            yield inside, here + outside - there, size
            inside, outside = inside + size, outside + size
    if outside < end:
        raise InvalidArgumentError(
            f"{KINDS[kind]} id {outside} of this machine, which the container is to have, is none "
            "of the engine's",
            "those of an ordinary user are its own and its ranges in /etc/subuid and /etc/subgid",
        )


def _without(one: "Span", other: "Span") -> "Iterator[Span]":
    """Yield what is left of a span without ids inside and outside that another has."""
    inside, outside, count = one
    begin = 0
    taken = sorted((other[side] - one[side], other[side] - one[side] + other[2]) for side in (0, 1))
    for low, high in (*taken, (count, count)):
        if low > begin:
            end = min(low, count)
            if end > begin:
                yield inside + begin, outside + begin, end - begin
        begin = max(begin, high)


def _filled(found: "Iterable[Span]", own: "Sequence[Span]") -> "list[Span]":
    """Returns spans, and between and behind them, from 0 on, the ids that none of them has."""
    spans = sorted(found)
    rest = [(here, here, length) for here, _, length in sorted(own)]
    for _, outside, count in spans:
        rest = [piece for one in rest for piece in _without(one, (outside, outside, count))]
    filled, inside = [], 0
    for begin, outside, count in (*spans, (_END, 0, 0)):
        while rest and inside < begin:
            _, first, length = rest.pop(0)
            size = min(length, begin - inside)
            filled.append((inside, first, size))
            inside += size
            if size < length:
                rest.insert(0, (first + size, first + size, length - size))
        if count:
            filled.append((begin, outside, count))
            inside = begin + count
    return filled


def joined(found: "Iterable[Span]") -> "list[Span]":
    """Returns spans in order; of those that go on where another ends, one is made."""
    joined: list[Span] = []
    for inside, outside, count in sorted(found):
        if joined:
            first, there, length = joined[-1]
            if (first + length, there + length) == (inside, outside):
                joined[-1] = (first, there, length + count)
                continue
        joined.append((inside, outside, count))
    return joined


def _malformed(text: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"invalid range of ids: {text}",
        "a range is INSIDE:OUTSIDE:COUNT, three numbers of 32 bits, before which there may be the "
        "flags +, u and g, and @ before OUTSIDE",
    )
