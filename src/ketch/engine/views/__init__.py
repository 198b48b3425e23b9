"""What is shown of containers and of the engine: rows, documents, figures."""
