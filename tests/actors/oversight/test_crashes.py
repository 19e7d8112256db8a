"""The watch over crashed actors: one alert for each, kept until it is committed."""

from fundops.actors.oversight.crashes import CrashWatch
from fundops.runtime import Crashed, Restarted, Terminated


def titles(watch: CrashWatch) -> list[str]:
    return [draft.title for draft in watch.drafts]


def test_a_crash_and_its_end_are_one_alert_each() -> None:
    watch = CrashWatch()
    assert watch.hear(Crashed(0.0, "a", 1, "Drill: x"))
    watch.hear(Crashed(0.0, "a", 2, "Drill: x"))
    watch.hear(Restarted(0.0, "b", 2))
    watch.hear(Restarted(0.0, "a", 3))
    assert titles(watch) == ["Actor a crashed", "Actor a runs again"]
    assert [draft.resolves for draft in watch.drafts] == [False, True]
    watch.committed(1)
    assert titles(watch) == ["Actor a runs again"]


def test_nothing_is_committed_while_storage_is_down() -> None:
    watch = CrashWatch()
    assert not watch.hear(Terminated(0.0, "a", "stopped"))
    assert not watch.hear(Crashed(0.0, "persistence", 1, "Drill: x"))
    assert not watch.hear(Crashed(0.0, "a", 1, "Drill: x"))
    assert watch.hear(Restarted(0.0, "persistence", 2))
    assert len(watch.drafts) == 3


def test_keys_of_an_earlier_process_are_resolved_once() -> None:
    watch = CrashWatch()
    watch.hear(Crashed(0.0, "a", 1, "Drill: x"))
    watch.resolve({"crashed:a", "crashed:b"})
    assert titles(watch) == ["Actor a crashed", "Actor b runs again"]
    watch.resolve({"crashed:b"})
    assert len(watch.drafts) == 2
