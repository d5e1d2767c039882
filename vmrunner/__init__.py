"""One fresh virtual machine per build, nothing left behind."""
