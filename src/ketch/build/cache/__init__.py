"""What steps came to, kept for the builds that come after."""
