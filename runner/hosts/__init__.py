"""What a machine spawns: the interface, and the hosts that are no QEMU."""
