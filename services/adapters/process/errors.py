"""The error of a process that cannot start or go on as it is configured."""


class Unusable(Exception):
    """The environment, or a file or address named there, cannot be used; the text has a line for each fault."""
