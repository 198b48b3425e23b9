"""Networks, who is on them, and how containers are connected."""
