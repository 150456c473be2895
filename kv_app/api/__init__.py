"""The HTTP API: validates, calls the node, maps errors."""
