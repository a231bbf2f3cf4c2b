"""The only place that imports llama_cpp and reaches into its libraries.

Importing this package loads nothing; `library.load` does.
"""
