"""The flags that lists, inspections and prunes of all kinds have alike."""

from ketch.cli.flags import Flag
from ketch.spec.filters import pair

DOCUMENT_FORMAT = Flag("format", "f", help="Format output: 'json' or a Go template")
LIST_FORMAT = Flag(
    "format", help="Format output: 'table', 'table TEMPLATE', 'json' or a Go template"
)
UNASKED = Flag("force", "f", "bool", "Do not prompt for confirmation")


def filters(example: str = "", shorthand: str = "f") -> Flag:
    """Returns ``--filter``.

    Args:
        example: a value to show in the help, if any.
        shorthand: empty where ``-f`` is something else.
    """
    about = "Filter output based on conditions provided"
    if example:
        about = f'Provide filter values (e.g. "{example}")'
    return Flag("filter", shorthand, "list", about, metavar="filter", convert=pair)
