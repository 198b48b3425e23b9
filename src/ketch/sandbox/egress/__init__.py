"""What leads out of a sandbox: names and addresses that it may reach, by a relay outside of it."""
