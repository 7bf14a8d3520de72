"""The one exception of this package: what does not fit, where, and what to do. Its text is what the user reads."""


class Refused(Exception):
    """The input or the place for the output cannot be used. Exit code 1."""
