"""Images as OCI has them: blobs by digest, layers, snapshots."""
