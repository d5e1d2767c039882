"""The allow-list's proxy: all that a VM with one can speak to, in a network of the two alone."""
