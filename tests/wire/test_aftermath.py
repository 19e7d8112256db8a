"""The four sentences that end an alert."""

from fundops.wire.aftermath import NAMES_MAX, NOT_KNOWN, aftermath, listed


def test_the_four_sentences_come_in_one_order() -> None:
    assert aftermath(("a", "b"), left_open=NOT_KNOWN, next_act="none", undo="do this") == (
        "Stopped: a, b. Left open: not known yet. Next automatic act: none. To undo: do this."
    )


def test_many_names_are_counted() -> None:
    assert listed(()) == "none"
    assert listed(tuple("abcde")) == "a, b, c, d, e"
    names = [str(number) for number in range(10_000)]
    assert listed(names) == f"{', '.join(names[:NAMES_MAX])} and 9,990 more"
