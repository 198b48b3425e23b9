"""File modes as ``--chmod`` has them: octal digits, or what chmod(1) calls symbolic.

The rules are BSD's setmode(3) with a umask of 022, which is what BuildKit has: without a letter
for who is meant (``+w``), the umask holds back what it would of a new file, and ``X`` is about what
was executable at first. Sources: github.com/tonistiigi/dchapes-mode; Dockerfile reference, COPY
--chmod.
"""

from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError

_UMASK = 0o022
_STICKY = 0o1000
_ALL = 0o6777  # what a clause without who is about
_WHO = {"a": _ALL, "u": 0o4700, "g": 0o2070, "o": 0o0007}
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111}


@dataclass(frozen=True)
class _Clause:
    """One operation.

    Attributes:
        operator: ``+``, ``-`` or ``=``.
        who: the bits that it is about, 0 for all that the umask lets through.
        bits: which of them.
        conditional: likewise, for directories and what somebody may execute.
        source: whose bits are copied (``u``, ``g``, ``o``), empty for nobody's.
    """

    operator: str
    who: int
    bits: int = 0
    conditional: int = 0
    source: str = ""


@dataclass(frozen=True)
class Mode:
    """What is done to the permission bits of a file.

    Attributes:
        absolute: the bits that it gets, None where they follow from those that it has.
    """

    absolute: int | None
    _clauses: tuple[_Clause, ...] = ()

    def apply(self, bits: int, *, is_directory: bool) -> int:
        """Returns what becomes of a file's permission bits, setuid, setgid and sticky included."""
        if self.absolute is not None:
            return self.absolute
        result = bits
        executable = is_directory or bool(bits & 0o111)
        for clause in self._clauses:
            result = _applied(clause, result, executable=executable)
        return result


def parse(text: str) -> Mode:
    """Returns what a ``--chmod`` says.

    Raises:
        InvalidArgumentError: it is neither octal up to 07777 nor symbolic, in BuildKit's words.
    """
    if text[:1].isdigit():
        octal = text.isascii() and all(digit in "01234567" for digit in text)
        digits = text.lstrip("0")
        if not octal or len(digits) > 4 or int(digits or "0", 8) > 0o7777:
            raise InvalidArgumentError(
                f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and"
                " 07777"
            )
        return Mode(int(digits or "0", 8))
    clauses: list[_Clause] = []
    for part in text.split(","):
        clauses += _parsed(part, text)
    return Mode(None, tuple(clauses))


def _parsed(part: str, text: str) -> list[_Clause]:
    rest = part.lstrip("augo")
    who = 0
    for letter in part[: len(part) - len(rest)]:
        who |= _WHO[letter]
    if not rest:
        raise _invalid(text)
    clauses: list[_Clause] = []
    while rest:
        operator, rest = rest[0], rest[1:]
        if operator not in "+-=":
            raise _invalid(text)
        length = next((place for place, one in enumerate(rest) if one in "+-="), len(rest))
        clauses += _operation(operator, who, rest[:length], text)
        rest = rest[length:]
    return clauses


def _operation(operator: str, who: int, letters: str, text: str) -> list[_Clause]:
    """Returns what ``=rwX`` and its like do, bits that are copied one by one."""
    bits = conditional = 0
    clauses: list[_Clause] = []
    give = "-" if operator == "-" else "+"
    for letter in letters:
        special = not who or bool(who & ~0o0007)  # others have no set-id bit, nor a sticky one
        if letter in _PERMISSIONS:
            bits |= _PERMISSIONS[letter]
        elif letter == "X":
            conditional |= 0o111
        elif letter == "s":
            bits |= 0o6000 if special else 0
        elif letter == "t":
            if special:
                who |= _STICKY
                bits |= _STICKY
        elif letter in _SHIFTS:
            if bits:
                clauses.append(_Clause(operator, who, bits))
            if conditional:
                clauses.append(_Clause(give, who, conditional=conditional))
            bits = conditional = 0
            clauses.append(_Clause(operator, who, source=letter))
        else:
            raise _invalid(text)
    if bits or (operator == "=" and not clauses):
        clauses.append(_Clause(operator, who, bits))
    if conditional:
        clauses.append(_Clause(give, who, conditional=conditional))
    return clauses


def _applied(clause: _Clause, bits: int, *, executable: bool) -> int:
    who = clause.who
    if clause.source:
        copied = (bits >> _SHIFTS[clause.source]) & 0o7
        reach = sum(0o7 << shift for name, shift in _SHIFTS.items() if who & (0o4 << shift))
        if not who:
            reach = 0o777 & ~_UMASK
        spread = (copied << 6 | copied << 3 | copied) & reach
        if clause.operator == "+":
            return bits | spread
        return bits & ~spread if clause.operator == "-" else (bits & ~reach) | spread
    if clause.conditional and not executable:
        return bits
    changed = _reached(who, clause.bits | clause.conditional)
    if clause.operator == "+":
        return bits | changed
    return bits & ~changed if clause.operator == "-" else (bits & ~(who or _ALL)) | changed


def _reached(who: int, bits: int) -> int:
    return bits & who if who else bits & ~_UMASK


def _invalid(text: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"invalid chmod parameter: '{text}': invalid syntax",
        "it is octal (0644), or symbolic as chmod(1) has it (u=rwX,go=rX)",
    )
