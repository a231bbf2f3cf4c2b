"""The only place that prints and asks.

Answers and data go to stdout; talk, progress and errors to stderr. With `--json`
stdout holds one JSON document and stderr JSON lines. Text is cleaned at this last
step: all of it but an answer or JSON that goes to a file or a pipe. Knows no
command.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, TextIO

import click

from wizard_edge.cli._clean import StreamCleaner, clean, clean_line, escape_json
from wizard_edge.errors import UsageError
from wizard_edge.progress import Progress, silent

if TYPE_CHECKING:
    import logging

    from wizard_edge.cli._failures import Failure
    from wizard_edge.cli._progress import Display

Align = Literal["left", "right"]

_GAP = "  "
_LOGGERS = ("wizard_edge", "wizard_edge_converters")


class Output:
    """Where one command writes to, and how much.

    `verbosity` counts `-v`; 1 shows what is done, 2 also what llama.cpp says.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.quiet = False
        self.verbosity = 0
        self._cleaner = StreamCleaner()
        self._midline = False
        self._handler: logging.Handler | None = None
        self._shown: Display | None = None
        for stream in (sys.stdout, sys.stderr):
            # An ASCII or Windows code page terminal must not end a command.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")

    # Answers and data, on stdout.

    def answer(self, text: str) -> None:
        """Write a piece of a model's answer at once, cleaned for a terminal only."""
        if is_terminal(sys.stdout):
            text = self._cleaner.feed(text)
        self._write_answer(text)

    def end_answer(self) -> None:
        """End an answer, with a line break where it has none."""
        self._write_answer(self._cleaner.finish())
        if self._midline:
            self._write_answer("\n")

    def text(self, text: str) -> None:
        """Write data for a person, as it is but cleaned, and a line break."""
        _write(sys.stdout, clean(text) + "\n")

    def document(self, value: object) -> None:
        """Write data for a program: one JSON document."""
        written = json.dumps(value, ensure_ascii=False, indent=2)
        _write(sys.stdout, escape_json(written) + "\n")

    def table(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[str] = (),
    ) -> None:
        """Write rows in plain aligned columns; those named in `right` end flush."""
        cells = [list(heads), *([clean_line(cell) for cell in row] for row in rows)]
        widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            line = _GAP.join(
                pad(cell, wide, "right" if head in right else "left")
                for cell, wide, head in zip(row, widths, heads, strict=True)
            )
            _write(sys.stdout, line.rstrip() + "\n")

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """Write names and values; a value of several lines stays in its column."""
        wide = max((width(name) for name, _ in rows), default=0)
        for name, value in rows:
            first, *rest = _lines(clean(value), indent=wide + len(_GAP))
            _write(sys.stdout, f"{pad(name, wide)}{_GAP}{first}".rstrip() + "\n")
            for line in rest:
                _write(sys.stdout, f"{'':{wide}}{_GAP}{line}".rstrip() + "\n")

    # Talk, on stderr.

    def say(self, text: str) -> None:
        """Tell a person what happened; silent with `--quiet` and `--json`."""
        if not self.quiet and not self.as_json:
            _write(sys.stderr, clean(text) + "\n")

    def detail(self, text: str) -> None:
        """Tell what only `-v` asks for."""
        if self.verbosity:
            self.say(text)

    def warn(self, text: str) -> None:
        """Tell what may surprise; shown with `--quiet` too."""
        if self.as_json:
            self._json_line({"warning": text})
        else:
            _write(sys.stderr, f"warning: {clean_line(text)}\n")

    def fail(self, failure: Failure) -> None:
        """Say why the command ends: one error line, and a hint where there is one."""
        if self._shown is not None:
            self._shown.close()
        if self._midline:
            self.end_answer()
        if self.as_json:
            self._json_line(failure.as_dict())
            return
        head = _red("error:") if is_terminal(sys.stderr) else "error:"
        _write(sys.stderr, f"{head} {clean_line(failure.message)}\n")
        if failure.hint:
            _write(sys.stderr, f"hint: {clean_line(failure.hint)}\n")

    def traceback(self, error: BaseException) -> None:
        """Write where an exception came from."""
        if not self.as_json:
            import traceback

            _write(sys.stderr, clean("".join(traceback.format_exception(error))))

    @contextmanager
    def progress(self, *, brief: bool = False) -> Iterator[Progress]:
        """Show progress while the block runs, in the form that fits stderr.

        `brief` work is worth a bar on a terminal, but no lines in a log.
        """
        unwatched = not self.as_json and not is_terminal(sys.stderr)
        if self.quiet or (brief and unwatched):
            yield silent
            return
        self._shown = display = self._display()
        try:
            yield display
        finally:
            self._shown = None
            display.close()

    def open_log(self) -> None:
        """Show the warnings of this program's log; `-v` adds its news, `-vv` all."""
        import logging

        class Handler(logging.Handler):
            def emit(handler, record: logging.LogRecord) -> None:
                self._log(record.levelno, record.getMessage())

        self._handler = Handler()
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(self._handler)
            logger.setLevel(logging.DEBUG)
            logger.propagate = False

    def close_log(self) -> None:
        """Leave the log as it was found."""
        if self._handler is None:
            return
        import logging

        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.removeHandler(self._handler)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
        self._handler = None

    # Questions.

    def confirm(self, question: str, *, about: str = "") -> bool:
        """Ask a question that wants yes; no answer at all, as in a script, is no.

        `about` is what has to be read first, so it is shown with `--quiet` too.
        """
        if self.as_json or sys.stdin is None:
            return False
        if self._shown is not None:
            # A bar would be drawn over the question; the next event brings it back.
            self._shown.close()
        if about:
            _write(sys.stderr, clean(about))
        try:
            return click.confirm(clean_line(question), err=True)
        except click.Abort:
            _write(sys.stderr, "\n")
            return False

    def read_line(self, prompt: str) -> str:
        """Read a line with the editing that the system gives.

        Raises: EOFError on Ctrl-D, KeyboardInterrupt on Ctrl-C, UsageError for bytes
        that are no text.
        """
        if is_terminal(sys.stdin):
            with suppress(ImportError):
                import readline  # noqa: F401  # makes input() edit and remember
        try:
            return input(prompt)
        except UnicodeDecodeError as err:
            raise UsageError("that line is not UTF-8 text") from err

    def _display(self) -> Display:
        from wizard_edge.cli._progress import Bar, JsonLines, Lines

        if self.as_json:
            return JsonLines(lambda line: _write(sys.stderr, line + "\n"))
        if is_terminal(sys.stderr):
            return Bar(sys.stderr)
        return Lines(self.say)

    def _write_answer(self, text: str) -> None:
        if text:
            _write(sys.stdout, text)
            self._midline = not text.endswith("\n")

    def _json_line(self, value: object) -> None:
        written = json.dumps(value, ensure_ascii=False)
        _write(sys.stderr, escape_json(written) + "\n")

    def _log(self, level: int, message: str) -> None:
        # logging's levels: 30 is a warning, 20 is news, 10 is for developers.
        if level >= 30:
            self.warn(message)
        elif level >= 20:
            self.detail(message)
        elif self.verbosity > 1:
            self.say(message)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person sits at the other end of a standard stream."""
    # A stream that the caller closed is None, and one that was closed since raises.
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _lines(text: str, *, indent: int) -> list[str]:
    """Split a text into lines, which on a terminal end where its window does."""
    lines = text.split("\n")
    if not is_terminal(sys.stdout):
        return lines
    import shutil
    import textwrap

    # Narrower than this, a column of words is worse than what a terminal makes of it.
    room = max(shutil.get_terminal_size().columns - indent, 20)
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line, room, break_long_words=False, break_on_hyphens=False
        )
        or [""]
    ]


def width(text: str) -> int:
    """Return how many columns a terminal gives a line."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0
        if unicodedata.combining(char)
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def pad(text: str, wide: int, align: Align = "left") -> str:
    """Fill a cell up to `wide` columns."""
    blank = " " * (wide - width(text))
    return blank + text if align == "right" else text + blank


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:
        stream.write(text)
        stream.flush()


def _red(text: str) -> str:
    # https://no-color.org: any value switches colours off.
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg="red", bold=True)
