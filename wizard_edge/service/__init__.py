"""Use cases in sentences: what a command, a server or a program asks for.

Each function takes an `Installation` and values, and returns values. Nothing here
prints, asks or knows of a terminal.
"""
