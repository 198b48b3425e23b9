"""What ``--format`` makes of rows: a table of chosen columns, JSON, or any text."""

from ketch.cli.documents import for_screen
from ketch.cli.tables import table
from ketch.errors import InvalidArgumentError
from ketch.spec.template import ParseError, Template
from ketch.spec.template_functions import Struct, to_json
from ketch.spec.template_nodes import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# A shell's single quotes keep backslashes, so Docker reads these two itself.
_HTML = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_ESCAPES = (("\\t", "\t"), ("\\n", "\n"))


RAW = "raw"


def raw(rows: "Iterable[Mapping[str, str]]", names: "Mapping[str, str]", *, quiet: bool) -> str:
    """Write rows as ``--format raw`` did before there were templates: a line for each value.

    Args:
        rows: what there is to show.
        names: what each field is called, the field that identifies a row first.
        quiet: whether that one is all there is to show.

    Returns:
        Lines, each with its newline; a row's end in an empty one.
    """
    shown = list(names.items())[:1] if quiet else names.items()
    end = "" if quiet else "\n"
    return "".join(
        "".join(f"{name}: {for_screen(row[field])}".rstrip() + "\n" for field, name in shown) + end
        for row in rows
    )


def render(rows: "Sequence[Struct]", template: str, heads: Struct) -> str:
    """Write rows by a template.

    Args:
        rows: what there is to show, one value for each field of the template's data.
        template: ``json`` for an object a line, ``table TEMPLATE`` for columns parted by tabs under
            a head, or a template for a line each.
        heads: the head of each column that has one.

    Returns:
        Lines, each with its newline.

    Raises:
        InvalidArgumentError: the template is wrong.
    """
    if template in {"json", "{{json .}}"}:
        # What Go encodes on the way to a template is fit for HTML, and so it is Docker's.
        return "".join(f"{to_json(row).translate(_HTML)}\n" for row in rows)
    try:
        parsed, is_table = _parsed(template)
        lines = [parsed.execute(row) for row in rows]
    except (ParseError, TemplateError) as error:
        raise InvalidArgumentError(f"template parsing error: {error.message}") from error
    if not is_table:
        return "".join(f"{for_screen(line)}\n" for line in lines)
    head = parsed.execute(heads)
    return table([line.split("\t") for line in (head, *lines)])


def check(template: str, empty: Struct) -> None:
    """Refuse a template with fields that there never are, though no row is there to miss them.

    Args:
        template: see ``render``.
        empty: a row with all fields.

    Raises:
        InvalidArgumentError: the template is wrong.
    """
    try:
        parsed, _ = _parsed(template)
        parsed.check(empty)
    except (ParseError, TemplateError) as error:
        raise InvalidArgumentError(f"template parsing error: {error.message}") from error


def _parsed(template: str) -> tuple[Template, bool]:
    """Returns what a row is written by, and whether rows are a table's."""
    source = template.removeprefix("table ")
    is_table = source != template
    if is_table:
        source = source.strip()
    for written, meant in _ESCAPES:
        source = source.replace(written, meant)
    return Template(source), is_table
