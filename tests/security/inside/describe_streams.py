"""Print which standard streams are terminals, and whether there is a controlling one."""

import json
import os

terminals = [number for number in range(3) if os.isatty(number)]
try:
    os.close(os.open("/dev/tty", os.O_RDWR))
    controlling = True
except OSError:
    controlling = False
print(json.dumps({"terminals": terminals, "controlling": controlling}))
