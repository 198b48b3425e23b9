"""What holds for every property that is tested."""

import hypothesis

# How long an example takes says how busy the machine is; pytest's own time limit ends what hangs.
hypothesis.settings.register_profile("ketch", deadline=None)
hypothesis.settings.load_profile("ketch")
