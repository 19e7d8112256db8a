"""The four sentences that end an alert."""

from fundops.wire.aftermath import NOT_KNOWN, aftermath, listed


def test_the_four_sentences_come_in_one_order() -> None:
    assert aftermath(("a", "b"), left_open=NOT_KNOWN, next_act="none", undo="do this") == (
        "Stopped: a, b. Left open: not known yet. Next automatic act: none. To undo: do this."
    )


def test_many_names_are_counted() -> None:
    assert listed(()) == "none"
    assert listed(tuple("abcde")) == "a, b, c, d, e"
    assert listed([str(number) for number in range(10_000)]) == "0, 1, 2, 3, 4 and 9,995 more"
