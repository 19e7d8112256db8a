"""The folder that all processes of this user share: for control sockets, and locks of files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["TEMPORARY", "made_folder", "problem_with", "shared_folder"]

# Not tempfile.gettempdir(), which depends on the environment: all processes of the user must use
# the same folder.
TEMPORARY: Final = Path("/tmp")


def shared_folder(temporary: Path = TEMPORARY) -> Path:
    """The same folder for every process of this user."""
    return temporary / f"fundops-{os.getuid()}"


def problem_with(folder: Path) -> str | None:
    """Why other users could reach a file in this folder; None: they cannot."""
    try:
        found = folder.lstat()
    except OSError as error:
        return f"cannot be entered: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != os.getuid():
        return f"belongs to uid {found.st_uid}"
    if found.st_mode & 0o077:
        return f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def made_folder(folder: Path) -> str | None:
    """Make the folder if it is missing; returns why it is not safe to use, None: it is."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        return f"cannot be made: {error.strerror}"
    return problem_with(folder)
