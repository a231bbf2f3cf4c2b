"""Fetches a file so that nothing that happens meanwhile can lose or spoil it.

The bytes go into a part file at their places, over one connection or several. A
journal beside it says which chunks are whole; one thread follows in order and takes
the SHA-256 of what is there. Whatever ends a run, the next one of the same key goes
on. Where bytes come from is a callable: nothing here knows a hub or the store.
"""

from wizard_edge.download._download import download
from wizard_edge.download._partial import bytes_there, part_paths
from wizard_edge.download._values import Fetched, Options, Source, Wanted

__all__ = [
    "Fetched",
    "Options",
    "Source",
    "Wanted",
    "bytes_there",
    "download",
    "part_paths",
]
