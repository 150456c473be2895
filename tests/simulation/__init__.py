"""The whole cluster in one thread: real nodes on a simulated clock, network and disks."""
