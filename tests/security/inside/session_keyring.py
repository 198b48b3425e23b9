"""Print the serial number of the session keyring and what can be found in it.

usage: session_keyring.py: adds a key and prints {"keyring": ..., "found": ...}
"""

import ctypes
import json
import os

SYS_ADD_KEY, SYS_KEYCTL = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
SESSION, GET_ID, SEARCH = -3, 0, 10
libc = ctypes.CDLL(None, use_errno=True)
keyring = libc.syscall(SYS_KEYCTL, GET_ID, SESSION, 0)
found = libc.syscall(SYS_KEYCTL, SEARCH, SESSION, b"user", b"ketch-test", 0)
libc.syscall(SYS_ADD_KEY, b"user", b"ketch-test", b"secret", 6, SESSION)
print(json.dumps({"keyring": keyring, "found": found > 0}))
