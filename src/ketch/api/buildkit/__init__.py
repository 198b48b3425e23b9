"""BuildKit's API: HTTP/2, gRPC, Control and the bridge, and the services of a client's session."""
