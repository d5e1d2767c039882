"""The store: objects in a directory or in a cloud's bucket, and the ways of sources, logs and
artifacts to it and back. Only this package imports obstore.

Nothing that ends a build or kills its VM waits for any of it.
"""

from vmrunner.lib.file_bytes import digest_of as digest_of
from vmrunner.store.base import PIECE as PIECE
from vmrunner.store.base import DeletesMany as DeletesMany
from vmrunner.store.base import ListedObject as ListedObject
from vmrunner.store.base import ObjectStore as ObjectStore
from vmrunner.store.base import damaged as damaged
from vmrunner.store.base import probe as probe
from vmrunner.store.base import verified as verified
from vmrunner.store.urls import open_store as open_store
