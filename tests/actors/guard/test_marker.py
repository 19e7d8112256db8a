"""The marker of the kill switch: any file, pipe, folder or link in its place means engaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.guard.marker import BYTES_MAX, Marker
from fundops.wire.guard import KillStatus

ENGAGED = KillStatus("ENGAGED", "fire", "ann", 1)


def test_it_is_read_as_it_was_written_and_gone_once_removed(tmp_path: Path) -> None:
    marker = Marker(tmp_path / "x.db.kill")
    assert (marker.read(), marker.exists()) == (None, False)
    marker.write(ENGAGED)
    assert (marker.read(), marker.exists()) == (ENGAGED, True)
    marker.remove()
    assert (marker.read(), marker.exists()) == (None, False)


@given(st.binary(max_size=60))
def test_no_content_makes_reading_it_fail(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.db.kill"
        path.write_bytes(content)
        found = Marker(path).read()
    assert found is not None
    assert found.state != "OFF"


ODD: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe that nobody writes into": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "an empty file": Path.touch,
    "a large file": lambda path: path.write_bytes(b" " * BYTES_MAX + b"{}"),
}


@pytest.mark.parametrize("odd", ODD)
def test_one_that_cannot_be_read_means_engaged(tmp_path: Path, odd: str) -> None:
    marker = Marker(tmp_path / "x.db.kill")
    ODD[odd](marker.path)
    found = marker.read()
    assert found is not None
    assert (found.state, found.by, marker.exists()) == ("ENGAGED", "fundops", True)
    assert "cannot be read" in found.reason


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd != "a folder"])
def test_it_is_written_over_whatever_lies_there(tmp_path: Path, odd: str) -> None:
    marker = Marker(tmp_path / "x.db.kill")
    ODD[odd](marker.path)
    marker.write(ENGAGED)
    assert marker.read() == ENGAGED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.db.kill"]


@pytest.mark.parametrize("odd", ["a folder", "a pipe that nobody writes into", "a link to nowhere"])
def test_a_write_without_room_says_so_and_leaves_what_lies_there(
    tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    marker = Marker(tmp_path / "x.db.kill")
    ODD[odd](marker.path)
    with monkeypatch.context() as patch:
        patch.setattr(Marker, "_sync_folder", lambda _: None)
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            marker.write(ENGAGED)
    assert marker.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x.db.kill"]


def test_a_folder_in_its_place_is_an_error_of_writing(tmp_path: Path) -> None:
    marker = Marker(tmp_path / "x.db.kill")
    marker.path.mkdir()
    with pytest.raises(OSError, match="directory"):
        marker.write(ENGAGED)
