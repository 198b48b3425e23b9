"""Images from Dockerfiles: plan, execution, cache, outputs."""
