"""Makes the pictures of the status page: `python docs/screenshots.py`; needs chromium.

The page is the real one in a real browser, and the fund is the scripted one of its tests. The
pictures are closest to the design with the font Inter (Debian: `fonts-inter`).
"""

from __future__ import annotations

import base64
import shutil
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["PICTURE_BYTES_MAX", "main"]

DOCS = Path(__file__).parent
STAGE = DOCS.parent / "tests" / "page" / "conftest.py"
PICTURE_BYTES_MAX = 300_000
DESK = {"width": 1440, "height": 1190}
PHONE = {"width": 390, "height": 844}


def _stage() -> Any:
    """The scripted fund. The tests are no package, so it is loaded from its file."""
    spec = util.spec_from_file_location("page_stage", STAGE)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Stage()


def _open(browser: Browser, stage: Any, theme: str, size: dict[str, int]) -> Page:
    page = browser.new_context(
        bypass_csp=True,  # the functions that are waited for are evaluated in the page
        viewport=size,  # type: ignore[arg-type]
        color_scheme=theme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    ).new_page()
    page.goto(stage.url)
    page.wait_for_function("document.querySelector('#chartsum').textContent.startsWith('1,0')")
    return page


def _saved(page: Page, name: str) -> None:
    path = DOCS / name
    page.screenshot(path=path)
    assert path.stat().st_size <= PICTURE_BYTES_MAX, name


def _phones(browser: Browser, stage: Any) -> None:
    """A drawer, a broken connection and the first screen, side by side."""
    shots = []
    page = _open(browser, stage, "dark", PHONE)
    page.locator(".st", has_text="session_below_w5").click()
    page.wait_for_selector("#dr td >> text=no value")
    shots.append(page.screenshot())
    page = _open(browser, stage, "dark", PHONE)
    stage.open = False
    stage.cut()
    page.wait_for_selector("body[data-s=off] h1")
    page.wait_for_timeout(2200)
    shots.append(page.screenshot())
    stage.reset()
    shots.append(_open(browser, stage, "light", PHONE).screenshot())
    images = "".join(
        f"<img src='data:image/png;base64,{base64.b64encode(shot).decode()}'>" for shot in shots
    )
    page = browser.new_context(viewport={"width": 1202, "height": 844}).new_page()
    style = "body{margin:0;display:flex;gap:16px;background:#888}"
    page.set_content(f"<style>{style}</style>{images}")
    _saved(page, "page-phone.png")


def main() -> int:
    """Write the four pictures into docs/; 1 when there is no chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium in PATH", file=sys.stderr)  # noqa: T201
        return 1
    stage = _stage()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for theme in ("light", "dark"):
                _saved(_open(browser, stage, theme, DESK), f"page-{theme}.png")
            page = _open(browser, stage, "light", DESK)
            stage.engage()
            page.wait_for_selector("#att li >> text=Kill switch engaged")
            page.wait_for_timeout(200)
            _saved(page, "page-kill.png")
            stage.reset()
            _phones(browser, stage)
            browser.close()
    finally:
        stage.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
