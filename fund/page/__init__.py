"""The status page: one HTML file with its own style and script, and no request beside `/ws`.

It is data: this package reads it and knows nothing of the fund.
"""

from functools import cache
from importlib.resources import files

__all__ = ["html"]


@cache
def html() -> bytes:
    """The page, UTF-8, at most 90 KB. It has one `<style>` and one `<script>`, both inline.

    So a content security policy may name them by their hashes.
    """
    return files(__name__).joinpath("static", "index.html").read_bytes()
