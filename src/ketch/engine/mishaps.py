"""What went wrong when nobody was there to be told: notes in the error log.

Monitors and the zygote have ``errors.log`` in the state directory as their standard error.
"""

import sys
import time
import traceback


def note(what: str, error: BaseException) -> None:
    """Write down a failure with all that is known of it.

    Args:
        what: what was being done, and for which container.
        error: what it failed with.
    """
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = "".join(traceback.format_exception(error))
    try:
        sys.stderr.write(f"{moment} {what}:\n{text}\n")
        sys.stderr.flush()
    except OSError:
        pass  # a full disk must not add to what is wrong already
