"""From original weights to one GGUF file, in one pass and bounded memory.

`pipeline.convert` is the way in. The package may use the facts, formats and the
ggml binding of `wizard_edge`, never its service, command line or server.
"""
