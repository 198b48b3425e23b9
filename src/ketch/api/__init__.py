"""The Docker Engine API: HTTP framing, routes by topic, server. It keeps no state of its own."""
