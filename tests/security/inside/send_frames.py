"""Send frames, as they are given in hexadecimal digits, by the container's link."""

import socket
import sys

with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
    raw.bind(("eth0", 0))
    for frame in sys.argv[1:]:
        raw.send(bytes.fromhex(frame))
