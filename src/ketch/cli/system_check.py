"""``ketch system check``: what this machine offers to this user."""

import sys

from ketch.cli import documents
from ketch.cli.flags import Command, parse
from ketch.cli.tables import table
from ketch.cli.usual_flags import DOCUMENT_FORMAT
from ketch.engine.home import entering, offers
from ketch.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

CHECK = Command(
    "ketch system check [OPTIONS]",
    "Show what this machine offers to this user, and what would mend what is missing\n\n"
    "The exit status is 0 where containers can run, 1 where they cannot.",
    (DOCUMENT_FORMAT,),
    maximum_arguments=0,
)


def check(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch system check``."""
    parsed = parse(CHECK, arguments)
    refused = None
    if settings.home:
        try:
            entering.enter(settings, network=False)
        except UnavailableError as error:
            refused = error
    found = offers.examine(settings, refused)
    can_run = offers.can_run(found)
    if template := parsed.text("format"):
        document = {"CanRun": can_run, "Offers": [offers.document(offer) for offer in found]}
        documents.formatted(document, template, "check.document")
    else:
        rows = [["OFFER", "STATE", "DETAIL"]]
        for offer in found:
            rows.append([offer.name, offer.state, offer.detail])
            if offer.remedy:
                rows.append(["", "", f"-> {offer.remedy}"])
        sys.stdout.write(table(rows))
        print("\nContainers can run." if can_run else "\nContainers cannot run.")
    return 0 if can_run else 1
