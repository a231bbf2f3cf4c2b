"""From original weights to GGUF files, in one pass and bounded memory.

`seam` is the way in for commands, `pipeline.convert` for Python. The package may use
the facts, formats and the ggml binding of `wizard_edge`, never its service, command
line or server.
"""
