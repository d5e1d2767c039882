"""Forges whose jobs run here. In all of them a VM's life is the ledger's: that a forge knows it no
more is no death, and that it wants it still is no veto past the deadline."""
