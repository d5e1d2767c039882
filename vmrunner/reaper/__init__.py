"""List the clouds, compare with the ledger, delete what must die."""
