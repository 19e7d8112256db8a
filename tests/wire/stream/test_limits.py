"""The limits refuse values that would switch them off."""

import math

import pytest

from fundops.runtime import ConfigError
from fundops.wire.stream.limits import ServerLimits


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_limits_must_be_positive(value: float) -> None:
    with pytest.raises(ConfigError, match="hello_s"):
        ServerLimits(hello_s=value)
