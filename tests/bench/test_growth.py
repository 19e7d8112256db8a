"""The growth bench at smoke size: the book grows, takes posts and verifies. No figure of speed."""

from __future__ import annotations

import pytest

from fundops.bench import growth
from fundops.bench.harness import Result, table


@pytest.fixture(scope="module")
def result() -> Result:
    return growth.run(0.002)


def test_the_book_has_grown_and_was_verified_after_all_posts(result: Result) -> None:
    assert [row.name for row in result.rows] == [growth.RAW, "verify"]
    # The 2,000 entries of the grown book, and 200 posts at its final size.
    assert [row.messages for row in result.rows] == [2_200, 2_200]
    assert {row.checksum for row in result.rows} == {2_200}


def test_the_figures_name_the_sizes_they_are_of(result: Result) -> None:
    names = [figure.name for figure in result.figures]
    assert names[2] == "slowdown of a post from 1,000 to 2,000"
    assert all(figure.value > 0 for figure in result.figures)
    assert "slowdown of a post" in table(result)


def test_the_peer_is_measured_or_said_to_be_missing(result: Result) -> None:
    assert ("verify over bean-check" in {figure.name for figure in result.figures}) is not bool(
        result.skipped
    )
