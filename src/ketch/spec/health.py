"""Health checks: ``--health-*`` and ``--no-healthcheck``. Times are nanoseconds."""

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal
from ketch.spec.timestamps import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.spec.image import Healthcheck

MINIMUM_NS = 1_000_000
# What an image alone may ask for: each check is the engine's work as well as the container's.
IMAGE_MINIMUM_NS = 1_000_000_000

_TIMES = {
    "health-interval": "Interval",
    "health-timeout": "Timeout",
    "health-start-period": "StartPeriod",
    "health-start-interval": "StartInterval",
}
OPTIONS = ("health-cmd", "health-retries", *_TIMES)

ON_FAILURE = ("none", "kill", "restart", "stop")


def period(text: str) -> int:
    """Reads a duration such as ``1m30s``."""
    digits = text.lstrip("+-")
    if digits != "0" and decimal(digits.replace(".", "", 1)) is not None:
        raise InvalidArgumentError(f'time: missing unit in duration "{text}"')
    return duration(text)


def healthcheck(given: "Mapping[str, object]") -> "Healthcheck | None":
    """Turns the options that were given into a health check, None where none was.

    Raises:
        InvalidArgumentError: a number is negative, or the check is switched off as well.
    """
    wanted = [name for name in OPTIONS if given.get(name)]
    if given.get("no-healthcheck"):
        if wanted:
            raise InvalidArgumentError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not wanted:
        return None
    check: Healthcheck = {}
    if command := given.get("health-cmd"):
        check["Test"] = ["CMD-SHELL", str(command)]
    for name in (*_TIMES, "health-retries"):
        number = given.get(name) or 0
        assert isinstance(number, int)
        if number < 0:
            raise InvalidArgumentError(f"--{name} cannot be negative")
        if number:
            check[_TIMES.get(name, "Retries")] = number  # type: ignore[literal-required]
    return check


def merge(own: "Healthcheck | None", image: "Healthcheck | None") -> "Healthcheck | None":
    """A container's health check, completed by its image's, which may not ask for many."""
    if not image:
        return own
    patient: Healthcheck = {**image}
    if 0 < image.get("Interval", 0) < IMAGE_MINIMUM_NS:
        patient["Interval"] = IMAGE_MINIMUM_NS
    if 0 < image.get("StartInterval", 0) < IMAGE_MINIMUM_NS:
        patient["StartInterval"] = IMAGE_MINIMUM_NS
    return {**patient, **{key: value for key, value in (own or {}).items() if value}}  # type: ignore[return-value]


def check(wanted: "Healthcheck") -> None:
    """Checks what the API was given; a test of a kind that nobody knows is none, as in Docker.

    Raises:
        InvalidArgumentError: a time is below a millisecond, or a number negative.
    """
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        nanoseconds: int = wanted.get(key) or 0  # type: ignore[assignment]
        if nanoseconds and nanoseconds < MINIMUM_NS:
            raise InvalidArgumentError(f"{key} in Healthcheck cannot be less than 1ms")
    if (wanted.get("Retries") or 0) < 0:
        raise InvalidArgumentError("Retries in Healthcheck cannot be negative")


def on_failure(text: str) -> str:
    """Checks ``--health-on-failure``: what is done to a container that turns unhealthy."""
    if text not in ON_FAILURE:
        raise InvalidArgumentError(f"invalid action: {text}", f"one of {', '.join(ON_FAILURE)}")
    return text
