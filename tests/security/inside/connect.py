"""Print whether an abstract socket can be connected to. usage: connect.py NAME"""

import socket
import sys

with socket.socket(socket.AF_UNIX) as connection:
    print(connection.connect_ex(f"\0{sys.argv[1]}") == 0)
