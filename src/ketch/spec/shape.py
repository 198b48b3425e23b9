"""Shapes of JSON documents: which fields there are, of which types, and which are required.

A shape is a function that takes a value out of a JSON document and raises Misfit when the value
is not of that shape. Fields that no shape names are let pass, as the runtime specification wants.
A field that is null is taken out: so Go's programs, runc among them, read and write what is absent.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[object], None]


class Misfit(Exception):  # noqa: N818 it never leaves this package
    """A value that is not of its shape.

    Attributes:
        path: the fields from the document's root to the value, the innermost first.
        message: what it should be.
    """

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = list(path)


def shown(value: object) -> str:
    """A value as an error names it: what it is, cut to a line's length."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text(value: object) -> None:
    """A string that can become a C string."""
    if type(value) is not str:
        raise Misfit(f"must be a string, not {shown(value)}")
    if "\0" in value:
        raise Misfit(f"must not contain a NUL character: {shown(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise Misfit(f"is not Unicode text: {shown(value)}") from None


def flag(value: object) -> None:
    """True or false."""
    if type(value) is not bool:
        raise Misfit(f"must be true or false, not {shown(value)}")


def integer(minimum: int, maximum: int) -> "Shape":
    """An integer within bounds, both included."""

    def check(value: object) -> None:
        # bool is a kind of int in Python, and true is no number in JSON.
        if type(value) is not int:
            raise Misfit(f"must be an integer, not {shown(value)}")
        if not minimum <= value <= maximum:
            raise Misfit(f"must be from {minimum} to {maximum}, not {value}")

    return check


def choice(*known: str) -> "Shape":
    """One of some strings."""

    def check(value: object) -> None:
        if type(value) is not str or value not in known:
            raise Misfit(f"must be one of {', '.join(known)}, not {shown(value)}")

    return check


def made_of(characters: str, meaning: str) -> "Shape":
    """A string of some characters."""
    known = frozenset(characters)

    def check(value: object) -> None:
        if type(value) is not str or not known.issuperset(value):
            raise Misfit(f"must be {meaning}, not {shown(value)}")

    return check


def worded(start: str, characters: str, meaning: str) -> "Shape":
    """A string that is a start and then some characters, at least one."""
    rest = made_of(characters, meaning)

    def check(value: object) -> None:
        if type(value) is not str or not value.startswith(start) or value == start:
            raise Misfit(f"must be {meaning}, not {shown(value)}")
        rest(value.removeprefix(start))

    return check


def array(item: "Shape") -> "Shape":
    """An array of values of one shape."""

    def check(value: object) -> None:
        if type(value) is not list:
            raise Misfit(f"must be an array, not {shown(value)}")
        for index, element in enumerate(value):
            try:
                item(element)
            except Misfit as misfit:
                misfit.path.append(f"[{index}]")
                raise

    return check


def texts(value: object) -> None:
    """An array of strings, of which there may be hundreds."""
    if type(value) is list:
        try:
            # One look at all of them together, where none is at fault.
            text("".join(value))
        except (TypeError, Misfit):
            pass
        else:
            return
    _each_text(value)


_each_text = array(text)


def mapping(item: "Shape") -> "Shape":
    """An object with keys of any kind and values of one shape."""

    def check(value: object) -> None:
        if type(value) is not dict:
            raise Misfit(f"must be an object, not {shown(value)}")
        for key, element in value.items():
            try:
                text(key)
                item(element)
            except Misfit as misfit:
                misfit.path.append(f".{key}")
                raise

    return check


def record(fields: "dict[str, Shape]") -> "Shape":
    """An object with fields of known shapes; a name that ends in ``!`` is required."""
    shapes = {name.rstrip("!"): shape for name, shape in fields.items()}
    required = [name[:-1] for name in fields if name.endswith("!")]

    def check(value: object) -> None:
        if type(value) is not dict:
            raise Misfit(f"must be an object, not {shown(value)}")
        if None in value.values():
            for name in [name for name, element in value.items() if element is None]:
                del value[name]
        for name in required:
            if name not in value:
                raise Misfit("is required", f".{name}")
        for name, element in value.items():
            shape = shapes.get(name)
            if shape is not None:
                try:
                    shape(element)
                except Misfit as misfit:
                    misfit.path.append(f".{name}")
                    raise

    return check


INT32 = integer(-(2**31), 2**31 - 1)
INT64 = integer(-(2**63), 2**63 - 1)
UINT16 = integer(0, 2**16 - 1)
UINT32 = integer(0, 2**32 - 1)
UINT64 = integer(0, 2**64 - 1)
