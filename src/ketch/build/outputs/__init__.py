"""Where a build's result goes: a file a kind of output."""
