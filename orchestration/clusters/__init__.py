"""Where the nodes run: local processes, Docker Compose, or a deployment that stands already."""
