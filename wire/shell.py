"""The commands that answers and alerts tell a person to type.

NAME, TEXT and VALUE in them stand for the person's own words.
"""

from __future__ import annotations

import shlex
from typing import Final

__all__ = ["PERSON", "shell_command"]

PERSON: Final = "--by NAME --reason TEXT"


def shell_command(words: str, name: str, options: str = "", *, more: str = "") -> str:
    """The command of these words on `name`, quoted for a shell; `more` are further arguments.

    A name that begins with a dash would be read as an option: it stands behind `--`, and the
    options stand before that.
    """
    parts = [words, shlex.quote(name), more, options]
    if name.startswith("-"):
        parts = [words, options, "--", shlex.quote(name), more]
    return " ".join(("fundops", *filter(None, parts)))
