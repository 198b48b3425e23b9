"""From what was asked for to the configuration that the runtime is given."""
