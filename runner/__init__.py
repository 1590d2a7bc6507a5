"""A declarative batch runner for real-time experiments on fleets of QEMU machines."""
