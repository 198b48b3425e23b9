"""The vocabulary of the field: pure values, parsers and tables; no I/O."""
