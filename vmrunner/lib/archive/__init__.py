"""Tar streams, written and read: what comes from a VM is attacker input."""
