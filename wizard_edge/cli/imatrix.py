"""`wizard-edge imatrix`: what matters to a model when it reads a text, as a file."""

from __future__ import annotations

from pathlib import Path

import click

from wizard_edge.cli._app import App, Command, json_option, pass_app
from wizard_edge.cli._input import read_file
from wizard_edge.cli._options import (
    commercial_option,
    complete_models,
    overwrite_option,
    threads_option,
)
from wizard_edge.units import format_bytes


@click.command("imatrix", cls=Command, help="Compute an importance matrix from a text")
@click.argument("model", metavar="MODEL|FILE.gguf", shell_complete=complete_models)
@click.option(
    "--text",
    "text_file",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    required=True,
    help="Let the model read this text, - is stdin",
)
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="Write this file, in llama.cpp's GGUF form",
)
@click.option(
    "-c",
    "--ctx-size",
    "chunk_size",
    type=int,
    default=512,
    metavar="N",
    help="Read chunks of N tokens (default: 512)",
)
@click.option(
    "--chunks", type=int, metavar="N", help="End after N chunks (default: all)"
)
@threads_option
@commercial_option
@overwrite_option
@json_option
@pass_app
def command(
    app: App,
    model: str,
    text_file: str,
    file: Path,
    chunk_size: int,
    chunks: int | None,
    threads: int | None,
    commercial: bool | None,
    overwrite: bool,
) -> None:
    from wizard_edge.service.importance import measure_importance
    from wizard_edge_converters.imatrix import ImatrixWriter

    text = read_file(text_file)
    with app.output.progress() as progress:
        measured = measure_importance(
            app.installation,
            model,
            text,
            file,
            save=ImatrixWriter(overwrite=overwrite),
            dataset=text_file,
            chunk_size=chunk_size,
            chunks=chunks,
            threads=threads,
            commercial=commercial,
            progress=progress,
        )
    if app.output.as_json:
        app.output.document(
            {
                "path": str(measured.path),
                "size": measured.size,
                "tensors": measured.tensors,
                "tokens": measured.tokens,
                "chunks": measured.chunks,
                "chunk_size": measured.chunk_size,
            }
        )
        return
    app.output.say(
        f"wrote {measured.path} ({format_bytes(measured.size)}): {measured.tensors} "
        f"tensors, {measured.chunks} chunks of {measured.chunk_size} tokens"
    )
