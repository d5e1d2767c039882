"""A server of ours, as its clients see it: the ledger's reads and writes over HTTP."""

from vmrunner.services.client.http_client import HttpClient as HttpClient
from vmrunner.services.client.ledger import RemoteLedger as RemoteLedger
