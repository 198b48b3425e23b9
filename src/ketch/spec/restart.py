"""Restart policies: ``--restart no|always|unless-stopped|on-failure[:retries]``."""

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import RestartPolicy

NAMES = ("no", "always", "on-failure", "unless-stopped")


def policy(text: str) -> "RestartPolicy":
    """Reads the option; which names there are is checked by ``check``."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise InvalidArgumentError("invalid restart policy format: no policy provided before colon")
    sign = count[:1] if count[:1] in {"-", "+"} else ""
    retries = decimal(count.removeprefix(sign)) if count else 0
    if retries is None:
        raise InvalidArgumentError(
            "invalid restart policy format: maximum retry count must be an integer"
        )
    return {"Name": name, "MaximumRetryCount": -retries if sign == "-" else retries}


def check(wanted: "RestartPolicy") -> None:
    """Checks a policy, wherever it came from.

    Raises:
        InvalidArgumentError: there is no such policy, or it takes no such count.
    """
    name, count = wanted.get("Name") or "", wanted.get("MaximumRetryCount") or 0
    if not name:
        return
    if name not in NAMES:
        raise InvalidArgumentError(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    negative = " and cannot be negative" if count < 0 else ""
    if name != "on-failure" and count:
        raise InvalidArgumentError(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            + negative
        )
    if count < 0:
        raise InvalidArgumentError("invalid restart policy: maximum retry count cannot be negative")
