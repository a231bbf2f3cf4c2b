"""A GGUF file loaded by llama.cpp, checked by our own reader before."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

# A pointer of the binding, whose types are not annotated for checkers.
from typing import Any

from wizard_edge._llama import library
from wizard_edge._llama.offloading import gpu_layers
from wizard_edge._llama.vocabulary import LlamaVocabulary
from wizard_edge.engine import LoadOptions
from wizard_edge.errors import BackendError
from wizard_edge.gguf_rules import read_valid
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.verdicts import Judge, check

# llama_load_mode of llama.h: bit 0 maps the file, bit 1 locks it into memory.
_MMAP = 1
_MLOCK = 2
# What llama.h says for every layer.
_ALL_LAYERS = -1
# The end of an empty list: with no layer on it a GPU would read prompts all the same.
_NO_DEVICES = ctypes.c_void_p(None)


class Model:
    """Owns a `llama_model`; `close` frees it."""

    def __init__(
        self,
        path: Path,
        options: LoadOptions,
        *,
        vocabulary_only: bool = False,
        judge: Judge = check,
        progress: Progress = silent,
    ) -> None:
        """Validate and load the file; of one for its vocabulary alone that is judged.

        Raises: MissingFile, Corrupt, UnsupportedArchitecture from the validation;
        BackendError with llama.cpp's own reason when it refuses the file, or for a
        worker that is not there.
        """
        if vocabulary_only:
            read_valid(path, vocabulary_only=True)
        else:
            judge(path)
        self.library = library.load()
        params = self.library.llama_model_default_params()
        params.vocab_only = vocabulary_only
        devices = None if vocabulary_only else _remote_devices(options)
        if devices is not None:
            params.devices = ctypes.addressof(devices)
            asked = options.gpu_layers
            params.n_gpu_layers = asked if isinstance(asked, int) else _ALL_LAYERS
        else:
            params.n_gpu_layers = 0 if vocabulary_only else gpu_layers(path, options)
            if params.n_gpu_layers == 0:
                params.devices = ctypes.addressof(_NO_DEVICES)
        params.use_extra_bufts = options.repack
        params.load_mode = options.mmap * _MMAP + options.mlock * _MLOCK
        callback = self.library.llama_progress_callback(_reporter(progress))
        params.progress_callback = callback
        library.forget()
        begun = time.perf_counter()
        self.handle: Any = self.library.llama_model_load_from_file(
            str(path).encode(), params
        )
        try:
            library.raise_pending()
        except BaseException:
            if self.handle:
                self.library.llama_model_free(self.handle)
            raise
        if not self.handle:
            raise BackendError(
                f"llama.cpp cannot load {path}: {library.reason() or 'no reason'}"
            )
        self.load_s = time.perf_counter() - begun
        self.vocabulary = LlamaVocabulary(self.library, self.handle)

    @property
    def trained_context(self) -> int:
        """The context the file names, in tokens."""
        return int(self.library.llama_model_n_ctx_train(self.handle))

    def close(self) -> None:
        """Free the model. A second call does nothing."""
        if self.handle is not None:
            self.vocabulary.close()
            self.library.llama_model_free(self.handle)
            self.handle = None


def _remote_devices(options: LoadOptions) -> Any:
    """Return the devices to name to llama.cpp, None where it chooses."""
    if not options.rpc:
        return None
    # Imported here: few have workers, and the first token waits for every import.
    from wizard_edge._llama import rpc, rpc_process

    rpc_process.greet(options.rpc)
    return rpc.device_list(options.rpc)


def _reporter(progress: Progress) -> Any:
    def report(done: float, user_data: object) -> bool:
        try:
            progress(ProgressEvent("load", round(done * 100), 100, "steps"))
        except BaseException as err:  # noqa: BLE001 - raised again by raise_pending
            library.keep(err)
            return False
        return True

    return report
