"""The answers beside the stream: page, liveness, readiness and schema, with their headers."""

import base64
import hashlib
from http import HTTPStatus

import msgspec

from fundops.wire.stream.site import Readiness, Site, answer, content_security_policy

PAGE = b"<!doctype html><style>p{}</style><p>hi</p><script type='x'>go()\n</script>"
HOST = "localhost:8711"


def hash_of(text: bytes) -> str:
    return base64.b64encode(hashlib.sha256(text).digest()).decode()


def ready(*problems: str) -> Readiness:
    return Readiness(not problems, {"ledger": "running"}, "ok", 0.5, "OFF", problems)


def test_the_page_may_run_its_own_script_and_style_and_no_others() -> None:
    policy = content_security_policy(PAGE, HOST)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{hash_of(b'go()' + bytes([10]))}';" in policy
    assert f"style-src 'sha256-{hash_of(b'p{}')}';" in policy
    assert f"connect-src 'self' ws://{HOST} wss://{HOST};" in policy
    assert "unsafe" not in policy


def test_a_page_without_scripts_gets_no_source_for_them() -> None:
    policy = content_security_policy(b"<p>hi", HOST)
    assert "script-src" not in policy
    assert "style-src" not in policy


def test_the_page_is_given_as_it_is() -> None:
    found = answer(Site(page=lambda: PAGE), "/", HOST)
    assert found is not None
    assert (found.status, found.body) == (HTTPStatus.OK, PAGE)
    headers = dict(found.headers())
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(PAGE))


def test_without_a_page_or_a_judge_there_is_nothing() -> None:
    assert answer(Site(), "/", HOST) is None
    assert answer(Site(), "/readyz", HOST) is None
    assert answer(Site(), "/weather", HOST) is None


def test_a_loop_that_turns_is_alive() -> None:
    found = answer(Site(), "/healthz", HOST)
    assert found is not None
    assert found.status == HTTPStatus.OK


def test_readiness_names_its_problems_with_503() -> None:
    good = answer(Site(readiness=ready), "/readyz", HOST)
    bad = answer(Site(readiness=lambda: ready("ledger is down")), "/readyz", HOST)
    assert good is not None
    assert bad is not None
    assert (good.status, bad.status) == (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
    assert msgspec.json.decode(bad.body)["problems"] == ["ledger is down"]
    assert set(msgspec.json.decode(good.body)) == {
        "ready",
        "actors",
        "storage",
        "tick_age_s",
        "kill_switch",
        "problems",
    }


def test_the_schema_names_messages_and_records() -> None:
    found = answer(Site(), "/schema.json", HOST)
    assert found is not None
    schema = msgspec.json.decode(found.body)
    assert set(schema["properties"]) == {"client", "server"}
    assert "nav" in schema["$defs"]["Fund"]["properties"]
    assert schema["events"]["journal"] == {"$ref": "#/$defs/JournalEvent"}
