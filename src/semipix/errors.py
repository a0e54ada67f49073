"""The one exception that stands for a user's slip."""


class SemipixError(Exception):
    """A slip in input or configuration, told in one line.

    The message names the file, key or tensor, what was found, what was expected and how to mend it.
    The command line prints it without a stack trace and exits with code 2.
    """


class UnreadableFileError(SemipixError):
    """A file of the data that cannot be read or decoded; `data.on_error=skip` goes on without it."""
