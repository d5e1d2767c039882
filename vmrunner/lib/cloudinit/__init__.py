"""User-data: what a VM is told at its first boot."""
