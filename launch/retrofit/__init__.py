"""Turns a Llama checkpoint into one whose caches compress (docs/dmc.md); `python3 -m retrofit` is the program."""
