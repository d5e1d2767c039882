"""The ways of sources, logs and artifacts between this host's disk, the ledger and the store.

Nothing that ends a build or kills its VM waits for any of it.
"""
