"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fundops.runtime import Supervisor, SupervisorSpec

# A shell that runs us in the background has SIGINT ignored, and every process we start would
# inherit that: no test of an interrupt could pass.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No property fails by the wall clock: other work may stop a machine for a second.
settings.register_profile("fundops", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fundops")

# Python and pytest keep compiled modules beside the sources, here and in the processes that tests
# start. Without them each worker rewrites the assertions of all files, most of its collection.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A commit waits for the disk, and no test judges the disk: those of power cuts and of full disks
# make their own. Only with room for the largest of them: a container's is often 64 MiB.
_MEMORY = Path("/dev/shm")
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 2**30:
    os.environ["TMPDIR"] = str(_MEMORY)
    tempfile.tempdir = None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector: the tests live until the end of the run, and each
    full collection would visit all of them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def no_control_socket_is_left_in_the_users_runtime_folder() -> Iterator[None]:
    """Not even by the funds that a test kills. The path must be short, so it is not one of
    pytest's.
    """
    before = os.environ.get("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="fo", dir="/tmp") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        yield
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before


@pytest.fixture(autouse=True)
def every_message_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end of every test, in every mailbox of every tree it has opened: one final state
    for each message.
    """
    trees: list[Supervisor] = []
    made = Supervisor.__init__

    def note(
        self: Supervisor,
        spec: SupervisorSpec,
        root: Supervisor | None = None,
        **settings: float | None,
    ) -> None:
        made(self, spec, root, **settings)
        if root is None:
            trees.append(self)

    monkeypatch.setattr(Supervisor, "__init__", note)
    yield
    for tree in trees:
        for name, one in tree.statistics().items():
            final = (
                one.done
                + one.crashed
                + one.interrupted
                + one.expired
                + one.quarantined
                + one.undeliverable
            )
            assert (one.accepted, one.queued, one.in_hand) == (final, 0, 0), (name, one)
