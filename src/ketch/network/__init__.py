"""Container networks: addresses, bridge, veth, packet filter."""
