"""The Hugging Face Hub: what a repository holds, and its bytes as a stream.

The requests are ours, through urllib: it streams into our hands at the cost of one
copy, knows the proxies of the environment, and follows no redirect by itself, so
that the token goes to the hub alone. huggingface_hub, whose HTTP library has changed
its name twice, has no bound on an answer, no check of a sha256 and no resume; of it
the login token is taken, and imported only then. Nothing here knows of checkpoints,
of the store or of paths.
"""

from wizard_edge.hub._http import Patience
from wizard_edge.hub._hub import (
    Hub,
    Stated,
    check_mirror,
    file_name,
    mirror_address,
)
from wizard_edge.hub._listing import RemoteFileInfo, Repository
from wizard_edge.hub._stream import ByteStream

__all__ = [
    "ByteStream",
    "Hub",
    "Patience",
    "RemoteFileInfo",
    "Repository",
    "Stated",
    "check_mirror",
    "file_name",
    "mirror_address",
]
