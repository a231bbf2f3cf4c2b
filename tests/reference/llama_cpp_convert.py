"""Runs llama.cpp's converter with the name of the pre-tokenizer given to it.

    python -m tests.reference.llama_cpp_convert CONVERTER PRE SOURCE OPTIONS...

Its converter knows a BPE pre-tokenizer by the hash of the ids that a fixed text has,
and so by the vocabulary: ours, which are made up, it cannot know. So that nothing
third-party has to be stored, PRE stands in for the result of that one look-up:
`get_vocab_base_pre`. Where there is no tokenizer.json the class of tokenizer is named
too: transformers 5 looks for that file alone, up to 4.57 it took GPT2TokenizerFast for
vocab.json and merges.txt. All else is the converter as it is.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    converter, pre, *arguments = sys.argv[1:]
    folder = str(Path(converter).parent)
    sys.path[:0] = [folder, f"{folder}/gguf-py"]
    import transformers
    from conversion.base import TextModel  # type: ignore[import-not-found]

    TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    if not (Path(arguments[0]) / "tokenizer.json").exists():
        transformers.AutoTokenizer = transformers.GPT2TokenizerFast
    sys.argv = [converter, *arguments]
    runpy.run_path(converter, run_name="__main__")


if __name__ == "__main__":
    main()
