"""Errors of a database file, raised before it is read or written."""

from __future__ import annotations

from pathlib import Path

from ...runtime import FundopsError

__all__ = ["DatabaseError"]


class DatabaseError(FundopsError):
    """The file is not one that this version of fundops may open, copy or replace; `path` names
    it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem
