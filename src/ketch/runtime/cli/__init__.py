"""``ketch-oci``: the runtime with runc's command line, for podman, containerd and dockerd."""
