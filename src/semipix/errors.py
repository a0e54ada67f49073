"""The exception for errors in a user's input, and the shortening of messages for the screen."""

import re

PREFIX = "semipix: error: "
"""Beginning of the line of an error on the screen."""

MOST_CHARACTERS = 300 - len(PREFIX)
"""Largest length of a message, so that its line has at most 300 characters."""

_SHORTEST = 100
"""Characters to which long words, such as paths, are shortened before other parts of the message are left out."""


class SemipixError(Exception):
    """An error in input or configuration that the user can fix, explained in one line.

    The message names the file, key or tensor, what was found, what was expected and how to fix it.
    The command line prints it without a stack trace and exits with code 2.
    """


class UnreadableFileError(SemipixError):
    """A data file cannot be read or decoded; with `data.on_error=skip` training continues without it."""


def one_line(message: str) -> str:
    """A message in one line of at most `MOST_CHARACTERS` characters.

    A longer message is shortened in three steps, until it is short enough:

    1. The middle of its longest words is left out. These are paths, keys and values; the end of a path remains.
    2. The middle of its longest parts between punctuation is left out, since a path may contain spaces.
    3. The middle of the message is left out, which is usually a list. The beginning says what is wrong, and the end how
       to fix it.
    """
    text = " ".join(message.split())
    for separator in (r"( )", r"([:;,] )"):
        parts = re.split(separator, text)
        for most in range(MOST_CHARACTERS, _SHORTEST - 1, -1):
            if len(text) > MOST_CHARACTERS:
                text = "".join(_without_middle(part, most, most // 3) for part in parts)
    return _without_middle(text, MOST_CHARACTERS, MOST_CHARACTERS // 2)


def reason_of(error: BaseException, most: int | None = None) -> str:
    """What an exception says, as it is quoted in a message: in one line, or the name of its class where it is silent.

    Args:
        error: of a library, whose text may have lines and be long.
        most: characters that are kept, from its beginning; by default all.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def _without_middle(text: str, most: int, start: int) -> str:
    """A text of at most `most` characters; if it is longer, `start` characters of its beginning are kept."""
    return text if len(text) <= most else f"{text[:start]}...{text[start + 3 - most :]}"
