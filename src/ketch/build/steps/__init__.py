"""RUN: a program on a file system state, with the runtime of containers and without a container.

``Steps`` runs the steps of one build, in threads of the caller: each asks the zygote for a process
(``ketch.engine.monitor.stepping``) and holds the connection, whose end is the step's. What a killed
caller left, ``clean`` takes away.
"""

from ketch.build.steps.cleaning import clean
from ketch.build.steps.following import Outcome
from ketch.build.steps.mounts import Prepared, Source
from ketch.build.steps.running import HOSTNAME, Steps

__all__ = ["HOSTNAME", "Outcome", "Prepared", "Source", "Steps", "clean"]
