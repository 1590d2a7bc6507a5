"""Guests on this computer: what they are built of, how QEMU is told, and the processes that run them."""
