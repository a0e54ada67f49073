"""The one exception that stands for an error of the user's input, and how long its message may be on the screen."""

import re

PREFIX = "semipix: error: "
"""Before a message on the screen."""

MOST_CHARACTERS = 300 - len(PREFIX)
"""Of a message, so that its line has at most 300."""

_SHORTEST = 100
"""Characters that are left of a long word, such as a path, before other parts of the message are left out."""


class SemipixError(Exception):
    """An error in input or configuration that the user can fix, explained in one line.

    The message names the file, key or tensor, what was found, what was expected and how to fix it.
    The command line prints it without a stack trace and exits with code 2.
    """


class UnreadableFileError(SemipixError):
    """A file of the data that cannot be read or decoded; `data.on_error=skip` goes on without it."""


def one_line(message: str) -> str:
    """A message as it is printed: in one line of at most `MOST_CHARACTERS`.

    Where it is longer, the middle of its longest words is left out first: these are paths, keys and values that it
    quotes, and of a path the end remains. Then that of its longest parts between punctuation, since a path may hold
    spaces. At last its own middle is left out, where lists are: the beginning says what is wrong, and the end how to
    fix it.
    """
    text = " ".join(message.split())
    for between in (r"( )", r"([:;,] )"):
        parts = re.split(between, text)
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
    """A text of at most so many characters, of which `start` are from its beginning."""
    return text if len(text) <= most else f"{text[:start]}...{text[start + 3 - most :]}"
