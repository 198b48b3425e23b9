"""The OCI runtime: validate a configuration, plan it, execute the plan."""
