"""Small libraries of our own that know neither builds nor VMs."""
