"""Where the bytes of an installed file can be had again, and what to do where not."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from wizard_edge.errors import Corrupt, NotFound, UnknownModel
from wizard_edge.hub import Hub
from wizard_edge.models import RemoteFile
from wizard_edge.receipts import Piece, Receipt, StoredFile
from wizard_edge.registry import Registry
from wizard_edge.service.checkpoints import pull_command
from wizard_edge.service.installation import Installation
from wizard_edge.store import Installed

_MADE_HERE = "it was made on this machine, and lies nowhere else to be fetched from"
_FROM_NOWHERE = "nobody knows where its bytes can be fetched"


def find_pieces(
    installation: Installation, hub: Hub, installed: Installed, file: StoredFile
) -> tuple[Piece, ...]:
    """Return what a file consists of, end to end, by its receipt or the registry.

    The hub is asked only for what neither says, such as a commit.
    Raises: Corrupt, with the way to make the model anew, where nobody knows or the
    hub has other files by now; NotFound, Refused, HubError.
    """
    if file.pieces:
        return file.pieces
    path = installed.file_path(file)
    again = way_to_make_anew(installation, installed.receipt)
    remotes = registered_files(installation.registry, installed.receipt, file)
    if not remotes:
        made_here = (
            installed.receipt.weights or installed.receipt.origin.kind == "bundled"
        )
        why = _MADE_HERE if made_here else _FROM_NOWHERE
        raise Corrupt(path, why, hint=again)
    pieces = _as_pieces(hub, remotes, file)
    alone = pieces[0].sha256 if len(pieces) == 1 else file.sha256
    if sum(piece.size for piece in pieces) != file.size or alone != file.sha256:
        raise Corrupt(path, "the hub has another file by now", hint=again)
    return pieces


def way_to_make_anew(installation: Installation, receipt: Receipt) -> str:
    """Spell the commands that bring a model in again, from where it once came."""
    name = f"{receipt.model}:{receipt.quant}"
    remove = f"wizard-edge rm {name}"
    first = receipt.files[0].pieces[0] if receipt.files[0].pieces else None
    known = _is_known(installation, receipt)
    if first is not None and not known:
        # A stranger may have written it, and it is to be copied into a shell.
        source = shlex.quote(first.url or f"hf:{first.repo}/{first.path}")
        return f"{remove} && wizard-edge pull {source}"
    if first is not None or receipt.origin.kind == "bundled":
        return f"{remove} && wizard-edge pull {name}"
    if receipt.origin.kind == "local":
        made = "convert DIR" if receipt.weights else "import FILE"
        return f"{remove}, then wizard-edge {made}"
    if known and receipt.weights:
        spec = installation.registry.find(receipt.model)
        return f"{remove} && {pull_command(spec, receipt.quant)}"
    if receipt.weights and receipt.origin.repo:
        repo = shlex.quote(f"hf:{receipt.origin.repo}")
        again = f"wizard-edge convert {repo} -q {receipt.quant}"
        return f"{again} --overwrite"
    return f"{remove} && wizard-edge pull {name}"


def registered_files(
    registry: Registry, receipt: Receipt, file: StoredFile
) -> Sequence[RemoteFile]:
    """Return the files of the registry that make this one, none if it has none.

    They are known by the hash of the whole or, where parts were put end to end, by
    the name that an import gave them.
    """
    for spec in registry:
        for variant in spec.variants:
            for remote in variant.files:
                if remote.repo is not None and remote.sha256 == file.sha256:
                    return (remote,)
    try:
        variant = registry.find(receipt.model).variant(receipt.quant)
    except NotFound:
        return ()
    # Parts that were put end to end: no hash of the registry is that of the whole.
    whole = variant.joined == "bytes" and len(receipt.files) == 1
    from_there = receipt.origin.repo is not None and not receipt.weights
    if whole and from_there and receipt.origin.repo == variant.files[0].repo:
        return variant.files
    return ()


def _is_known(installation: Installation, receipt: Receipt) -> bool:
    try:
        installation.registry.find(receipt.model)
    except UnknownModel:
        return False
    return True


def _as_pieces(
    hub: Hub, remotes: Sequence[RemoteFile], file: StoredFile
) -> tuple[Piece, ...]:
    """Say of each file what a receipt would; all are of one repository."""
    first = remotes[0]
    assert first.repo
    if len(remotes) == 1 and first.revision is not None:
        size = file.size
        return (Piece(size, first.sha256, first.repo, first.revision, first.path),)
    listing = hub.repository(first.repo, first.revision)
    found = [listing.file(remote.path) for remote in remotes]
    return tuple(
        Piece(info.size, info.sha256, listing.repo, listing.revision, info.path)
        for info in found
    )
