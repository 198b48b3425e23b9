"""Container identifiers and names."""

import os

from ketch.errors import InvalidArgumentError

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_LETTERS_AND_MARKS = _LETTERS | frozenset("_.-")
ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
"""What a name may be made of, as messages say it."""

# Weather and temper for the first word, boats and what belongs to them for the second.
_FIRST = """
able agile airy amber ample ardent azure balmy blithe bold brave breezy bright brisk calm
candid cheery chilly civil clear clever coastal cosy crisp curious daring dashing deft dewy
diligent drifting eager earnest easy fabled fair faithful fearless fleet fluent foggy fond
frank fresh frosty gallant gentle gilded glad gleaming golden graceful grand hardy hearty
helpful hopeful humble hushed jaunty jolly jovial keen kindly lasting lively loyal lucid lucky
lunar mellow merry mighty mild misty modest moonlit neat nimble noble northern novel patient
placid playful plucky polite prompt proud quick quiet rapid ready restful rosy rugged salty
sandy sensible serene sharp shining silent silver sincere sleek smooth snug sober southern
spirited sprightly spry stately steady stellar stormy stout sturdy subtle sunny sure swift
tender thrifty tidal tidy tranquil trim trusty upbeat valiant vivid warm watchful wavy western
wily windy wintry wise witty young zesty
"""
_SECOND = """
anchor atoll ballast barge barque bay beacon berth binnacle boom bow bowline brig brigantine
bulwark buoy cabin canoe caravel catamaran clipper coble compass coracle corvette coxswain
creek current cutter deck dhow dinghy dock dory estuary fathom felucca fender ferry fjord foam
foresail frigate gaff galleon galley gangway gig gull gunwale halyard harbour hatch haven
hawser headland heron hoy hull inlet islet jetty jib junk kayak keel kelp kite knot lagoon
lantern lateen launch leeward lighter lighthouse lugger mainsail marina mast mizzen mooring
oar osprey paddle pelican pennant petrel pier pilot pinnace piper plank pontoon porthole prow
punt quay raft ratline reef regatta rigging ripple rowlock rudder sail sampan sandbar schooner
scow scull seagull sextant shanty shoal shore skiff skipper sloop smack spar spinnaker spray
starboard stern strait swell tack tender tern tide tiller topsail transom trawler trimaran tug
wake wharf wherry windlass xebec yacht yawl
"""


def new_id() -> str:
    """Returns a new container identifier: 64 hexadecimal digits.

    The first twelve, which are also the default host name, are never all decimal: such a name
    would pass for a number.
    """
    while True:
        identifier = os.urandom(32).hex()
        if not identifier[:12].isdecimal():
            return identifier


def new_name(attempt: int = 0) -> str:
    """Returns a name to try, such as ``quiet_clipper``; after many attempts with a number."""
    name = "_".join(words[_random(len(words))] for words in (_FIRST.split(), _SECOND.split()))
    return name if attempt < 6 else f"{name}{_random(10 ** (attempt - 5))}"


def check_name(name: str) -> str:
    """Returns a name that the user chose, without the slash that the API puts in front.

    Raises:
        InvalidArgumentError: it is not a name.
    """
    bare = name.removeprefix("/")
    if not is_name(bare):
        raise InvalidArgumentError(f"Invalid container name ({name}), only {ALLOWED} are allowed")
    return bare


def is_name(text: str) -> bool:
    """Whether something may be the name of a container or a checkpoint: one part of a path."""
    return len(text) > 1 and text[0] in _LETTERS and _LETTERS_AND_MARKS.issuperset(text)


def _random(below: int) -> int:
    return int.from_bytes(os.urandom(8), "big") % below
