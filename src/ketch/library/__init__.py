"""``import ketch``: the engine in a Python program, with no server in between."""
