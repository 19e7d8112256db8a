"""The settings are refused by name, and the cooldowns follow from them."""

import math
from typing import Any

import pytest

from fundops.actors.recovery.settings import RecoverySettings, cooldown_us
from fundops.runtime import ConfigError

SECOND = 1_000_000
LITERAL = RecoverySettings(first_attempt="after_cooldown")
DEFAULT = RecoverySettings()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("probation_s", -1),
        ("probation_s", math.nan),
        ("probation_s", True),
        ("base_cooldown_s", 0),
        ("base_cooldown_s", "60"),
        ("factor", 0.5),
        ("factor", math.inf),
        ("cooldown_max_s", 59),
        ("attempts_max", 0),
        ("attempts_max", 2.0),
        ("attempts_max", True),
        ("restart_deadline_s", 0),
        ("restart_concurrency", 0),
        ("restart_spacing_s", -0.1),
        ("max_starts_per_day", 0),
        ("first_attempt", "later"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        RecoverySettings(**{field: value})
    assert refused.value.field == field


def test_cooldowns_double_from_the_base_up_to_the_cap() -> None:
    assert [cooldown_us(DEFAULT, n) // SECOND for n in range(5)] == [0, 60, 120, 240, 480]
    assert [cooldown_us(LITERAL, n) // SECOND for n in range(4)] == [60, 120, 240, 480]
    capped = RecoverySettings(base_cooldown_s=1, factor=10, cooldown_max_s=50, attempts_max=100)
    assert cooldown_us(capped, 100) == 50 * SECOND
