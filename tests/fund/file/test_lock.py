"""One owner per database: in this process, in others, and after a death."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fundops import DatabaseInUse, FundopsError
from fundops.file import lock as lock_module
from fundops.file.lock import OwnerLock
from fundops.file.private import shared_folder
from fundops.wire.errors import DatabaseError

DEADLINE_S = 30

OWN = """
import sys
from pathlib import Path
from fundops.file.lock import OwnerLock
OwnerLock(Path(sys.argv[1])).acquire()
print("mine", flush=True)
sys.stdin.read()
"""


@contextmanager
def _other_process(database: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the database until its stdin is closed; it never releases by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_owner_in_the_same_process_is_refused_and_told_so(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    with OwnerLock(database), pytest.raises(DatabaseInUse) as caught:
        OwnerLock(database).acquire()
    assert caught.value.owner == "this process"
    assert caught.value.path == database
    assert "this process" in str(caught.value)
    assert isinstance(caught.value, FundopsError)


def test_another_way_of_writing_the_path_is_the_same_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with OwnerLock(tmp_path / "fund.db"):
        for other in (
            Path("fund.db"),
            Path("folder/../fund.db"),
            tmp_path / "folder" / ".." / "fund.db",
        ):
            with pytest.raises(DatabaseInUse):
                OwnerLock(other).acquire()


def test_a_link_to_the_database_makes_no_room_for_a_second_owner(tmp_path: Path) -> None:
    (tmp_path / "fund.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "fund.db")
    with OwnerLock(tmp_path / "fund.db"), pytest.raises(DatabaseInUse):
        OwnerLock(tmp_path / "link.db").acquire()


def test_two_databases_in_one_folder_have_two_owners(tmp_path: Path) -> None:
    with OwnerLock(tmp_path / "a.db"), OwnerLock(tmp_path / "b.db"):
        pass


def test_the_owner_in_another_process_is_named_by_its_pid(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    with _other_process(database) as process:
        with pytest.raises(DatabaseInUse) as caught:
            OwnerLock(database).acquire()
        assert caught.value.owner == f"pid {process.pid}"


def test_a_process_that_was_killed_owns_nothing_any_more(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    with _other_process(database) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_S) == -signal.SIGKILL
        with OwnerLock(database):
            pass


def test_a_process_that_ended_without_releasing_owns_nothing_any_more(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    with _other_process(database) as process:
        process.communicate("", DEADLINE_S)
        assert process.returncode == 0
        with OwnerLock(database):
            pass


def test_the_pid_of_a_dead_owner_does_not_stay_behind_in_the_name_of_the_next(
    tmp_path: Path,
) -> None:
    database = tmp_path / "fund.db"
    (tmp_path / "fund.db.lock").write_text("99999999999999")
    with (
        _other_process(database) as process,
        pytest.raises(DatabaseInUse, match=f"pid {process.pid};"),
    ):
        OwnerLock(database).acquire()


def test_what_was_released_can_be_taken_again_and_releasing_twice_is_nothing(
    tmp_path: Path,
) -> None:
    lock = OwnerLock(tmp_path / "fund.db")
    for _ in range(2):
        lock.acquire()
        lock.release()
        lock.release()
    assert (tmp_path / "fund.db.lock").read_text() == ""


def test_a_lock_that_never_got_the_database_does_not_release_the_owners(tmp_path: Path) -> None:
    with OwnerLock(tmp_path / "fund.db"):
        other = OwnerLock(tmp_path / "fund.db")
        with pytest.raises(DatabaseInUse):
            other.acquire()
        other.release()
        with pytest.raises(DatabaseInUse):
            other.acquire()


def test_whoever_waits_gets_it_when_it_is_released(tmp_path: Path) -> None:
    lock, got = OwnerLock(tmp_path / "fund.db"), threading.Event()
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with_wait = OwnerLock(tmp_path / "fund.db")
        with_wait.acquire(wait_s=DEADLINE_S)
        got.set()
        with_wait.release()

    thread = threading.Thread(target=wait)
    with lock:
        thread.start()
        assert waiting.wait(DEADLINE_S)
        assert not got.is_set()
    assert got.wait(DEADLINE_S)
    thread.join(DEADLINE_S)


def test_of_many_threads_at_once_exactly_one_gets_it(tmp_path: Path) -> None:
    start, outcomes = threading.Barrier(16), []

    def grab() -> None:
        lock = OwnerLock(tmp_path / "fund.db")
        start.wait(DEADLINE_S)
        try:
            lock.acquire()
        except DatabaseInUse as refusal:
            outcomes.append(refusal.owner)
        else:
            outcomes.append("got it")
        start.wait(DEADLINE_S)
        lock.release()

    threads = [threading.Thread(target=grab) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(outcomes) == ["got it", *["this process"] * 15]


def test_the_file_and_a_new_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    with OwnerLock(tmp_path / "new" / "fund.db"):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "new" / "fund.db.lock").stat().st_mode & 0o777 == 0o600


def test_a_place_where_nothing_can_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError, match="cannot be locked"):
        OwnerLock(tmp_path / "file" / "fund.db").acquire()


# -- the file itself


def test_a_hard_link_makes_no_room_for_a_second_owner(tmp_path: Path) -> None:
    (tmp_path / "fund.db").touch()
    (tmp_path / "link.db").hardlink_to(tmp_path / "fund.db")
    with (
        OwnerLock(tmp_path / "fund.db"),
        pytest.raises(DatabaseInUse, match=r"link\.db is in use by this process"),
    ):
        OwnerLock(tmp_path / "link.db").acquire()
    with OwnerLock(tmp_path / "link.db"):
        pass


def test_a_hard_link_in_another_process_names_the_owners_pid(tmp_path: Path) -> None:
    (tmp_path / "fund.db").touch()
    (tmp_path / "link.db").hardlink_to(tmp_path / "fund.db")
    link = OwnerLock(tmp_path / "link.db")
    with (
        _other_process(tmp_path / "fund.db") as process,
        pytest.raises(DatabaseInUse, match=f"pid {process.pid};"),
    ):
        link.acquire()
    with link:  # the refused attempt left no lock behind, and neither did the killed owner
        pass


def test_a_deleted_lock_file_admits_no_second_owner(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    database.touch()
    with _other_process(database) as process:
        (tmp_path / "fund.db.lock").unlink()
        with pytest.raises(DatabaseInUse, match=f"pid {process.pid};"):
            OwnerLock(database).acquire()


def test_a_file_made_by_its_owner_is_locked_when_claimed(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    with OwnerLock(database) as lock:
        database.touch()
        lock.claim_file()
        lock.claim_file()
        (tmp_path / "link.db").hardlink_to(database)
        with pytest.raises(DatabaseInUse, match="this process"):
            OwnerLock(tmp_path / "link.db").acquire()


def test_the_lock_of_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    database.touch()
    found = database.stat()
    trace = shared_folder() / f"{found.st_dev:x}-{found.st_ino:x}.lock"
    with OwnerLock(database):
        assert trace.read_text() == str(os.getpid())
    assert not trace.exists()


def test_without_a_safe_folder_the_lock_beside_the_file_still_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    monkeypatch.setattr(lock_module, "shared_folder", lambda: tmp_path / "open")
    (tmp_path / "fund.db").touch()
    with OwnerLock(tmp_path / "fund.db"), pytest.raises(DatabaseInUse):
        OwnerLock(tmp_path / "fund.db").acquire()
    assert "is open to others" in caplog.text
    assert list((tmp_path / "open").iterdir()) == []


def test_a_full_disk_takes_the_pid_and_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = OwnerLock(tmp_path / "fund.db")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        lock.acquire()
    with pytest.raises(DatabaseInUse):
        OwnerLock(tmp_path / "fund.db").acquire()
    lock.release()
    with OwnerLock(tmp_path / "fund.db"):
        pass


FORK = """
import os, signal, sys
from pathlib import Path
from fundops.errors import DatabaseInUse
from fundops.file.lock import OwnerLock
def told(text):
    os.write(1, f"{text}\\n".encode())  # one write each, or two processes would mix their lines
database = Path(sys.argv[1])
lock = OwnerLock(database)
lock.acquire()
if os.fork() == 0:
    lock.release()  # what it inherited is closed already, and the parent's lock stays
    try:
        OwnerLock(database).acquire()
    except DatabaseInUse as refusal:
        told(str(refusal.owner == f"pid {os.getppid()}"))
    sys.stdin.read()
    os._exit(0)
told("parent")
signal.pause()
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    database = tmp_path / "fund.db"
    database.touch()
    with subprocess.Popen(
        [sys.executable, "-c", FORK, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        try:
            lines = {parent.stdout.readline(), parent.stdout.readline()}
            assert lines == {"True\n", "parent\n"}
            with pytest.raises(DatabaseInUse, match=f"pid {parent.pid};"):
                OwnerLock(database).acquire()
        finally:
            parent.kill()  # it waits for a signal, so a failed check would wait with it
        parent.wait(DEADLINE_S)
        with OwnerLock(database):  # while the child lives, which ends with our end of its stdin
            pass
