"""FundConfig: every setting of a fund, checked at construction with the field named.

All subsystems are off by default. Percentages end in `_pct`, basis points in `_bps`, seconds in `_s`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from fundops.actors.alert import AlertSettings
from fundops.actors.guard import GuardSettings
from fundops.actors.ledger.accounts import ACCOUNTS, UNITS
from fundops.actors.ledger.core import Rules
from fundops.actors.oversight import FeeSettings, OversightSettings
from fundops.actors.promotion import PromotionSettings
from fundops.actors.recovery import RecoverySettings
from fundops.runtime import ConfigError
from fundops.wire.errors import AmountError, shown
from fundops.wire.money import positive_minor, to_minor

if TYPE_CHECKING:
    from fundops.actors.alert.delivery import SecretUrl

__all__ = ["FundConfig", "home"]


def home() -> Path:
    """Where funds keep their files unless told otherwise: FUNDOPS_HOME, or ~/.fundops."""
    return Path(os.environ.get("FUNDOPS_HOME") or Path.home() / ".fundops")


# Each subsystem knows the range of its own; that they are numbers at all is the same for everybody.
_NUMBERS: Final = (
    "recovery_every_ticks",
    "promotion_every_ticks",
    "max_fund_drawdown_pct",
    "max_strategy_drawdown_pct",
    "kill_confirm_ticks",
    "lease_s",
    "max_blind_s",
    "management_fee_bps",
    "performance_fee_pct",
    "crystallise_every_days",
    "min_paper_days",
    "min_trades",
    "min_sharpe",
    "max_drawdown_pct",
    "min_win_rate",
)


class FundConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one fund. Raises: `ConfigError` naming the field."""

    total_capital: float | int | str
    alert_webhook_url: str | SecretUrl | None = None  # None: no webhook; kept as a SecretUrl, which hides it
    ledger_enabled: bool = False
    promotion_enabled: bool = False
    self_healing_enabled: bool = False

    name: str = "fund"
    currency: str = "USD"
    db_path: str | Path | None = None  # None: <name>.db in the home folder
    tick_interval_s: float | None = 1.0  # None: the host calls tick()
    recovery_every_ticks: int = 10
    promotion_every_ticks: int = 60

    ledger_floats: Literal["round", "refuse"] = "round"  # what the ledger does with a float that has too many digits
    account_floors: Mapping[str, float | int | str] = {}  # what withdrawals, fee payments and posts leave in an account

    max_fund_drawdown_pct: float = 15.0
    max_strategy_drawdown_pct: float = 25.0
    kill_confirm_ticks: int = 1
    kill_action: Literal["halt", "flatten"] = "halt"
    lease_s: float = 30.0
    max_blind_s: float = 60.0

    management_fee_bps: int = 200
    performance_fee_pct: float = 20.0
    crystallise_every_days: float = 30.0

    promotion_ladder: Literal["four-stage", "three-stage"] = "four-stage"
    promotion_policy: Literal["guarded", "literal"] = "guarded"
    min_paper_days: float = 14
    min_trades: int = 50
    min_sharpe: float = 1.0
    max_drawdown_pct: float = 20.0
    min_win_rate: float = 0.45

    status_port: int | None = None  # None: no stream; 0: any free port
    status_token: str | None = None  # None: made at first start; "": none is asked for
    control_socket: bool = True  # commands from other processes of the same user, and the command line's
    alert_log: bool = False  # also deliver alerts to the logger fundops.alert
    alerts: AlertSettings = AlertSettings()
    recovery: RecoverySettings = RecoverySettings()

    def __post_init__(self) -> None:
        try:
            positive_minor(self.total_capital, "total_capital")
        except AmountError as error:
            raise ConfigError(error.field, f"{error.value!r} {error.problem}") from None
        for field in ("ledger_enabled", "promotion_enabled", "self_healing_enabled", "control_socket", "alert_log"):
            if not isinstance(getattr(self, field), bool):
                raise ConfigError(field, f"{getattr(self, field)!r} is neither True nor False")
        for field in _NUMBERS:
            if not _is_number(getattr(self, field)):
                raise ConfigError(field, f"{shown(getattr(self, field))} is not a finite number")
        for field in ("kill_action", "promotion_ladder", "promotion_policy"):
            if not isinstance(getattr(self, field), str):
                raise ConfigError(field, f"{shown(getattr(self, field))} is not a text")
        _check_name("name", self.name, 64)
        if not isinstance(self.currency, str) or not 1 <= len(self.currency) <= 16 or not self.currency.isalnum():
            raise ConfigError("currency", f"{self.currency!r} is not 1 to 16 letters or digits")
        if self.currency == UNITS:
            raise ConfigError("currency", f"{UNITS} is what the shares in a fund are counted in")
        if self.db_path is not None and not isinstance(self.db_path, str | Path):
            raise ConfigError("db_path", f"{self.db_path!r} is not a path")
        interval = self.tick_interval_s
        if interval is not None and not (_is_number(interval) and interval > 0):
            raise ConfigError("tick_interval_s", f"{shown(interval)} is not a positive, finite number")
        port = self.status_port
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535):
            raise ConfigError("status_port", f"{shown(port)} is not a port number")
        if self.status_token is not None and not isinstance(self.status_token, str):
            raise ConfigError("status_token", "is not a text")
        for field, kind in (("alerts", AlertSettings), ("recovery", RecoverySettings)):
            if not isinstance(getattr(self, field), kind):
                raise ConfigError(field, f"is not {kind.__name__}")
        if self.alert_webhook_url is not None:
            self._hide_webhook_url()
        # Each of these checks its own fields.
        self.ledger_rules()
        self.guard_settings()
        self.promotion_settings()
        self.oversight_settings()

    def _hide_webhook_url(self) -> None:
        """A config is printed and logged, and the URL's path is a credential."""
        from fundops.actors.alert.delivery import SecretUrl  # loads an HTTP client: a tenth of a second

        url = self.alert_webhook_url
        if isinstance(url, str):
            msgspec.structs.force_setattr(self, "alert_webhook_url", SecretUrl(url))
        elif not isinstance(url, SecretUrl):
            raise ConfigError("alert_webhook_url", f"a {type(url).__name__} is not a URL")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As it is printed: the token opens the status stream, so it is not."""
        shown = [(field, getattr(self, field)) for field in self.__struct_fields__]
        return [(field, "(hidden)" if field == "status_token" and value else value) for field, value in shown]

    def __repr__(self) -> str:
        return f"FundConfig({', '.join(f'{field}={value!r}' for field, value in self.__rich_repr__())})"

    # -- what each subsystem gets

    @property
    def capital_minor(self) -> int:
        return positive_minor(self.total_capital, "total_capital").minor

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(self.db_path) if self.db_path is not None else home() / f"{self.name}.db"

    @property
    def alerts_enabled(self) -> bool:
        """Alerts are on when there is a channel, or anything that could have something to say."""
        channels = self.alert_webhook_url is not None or self.alert_log
        return channels or self.ledger_enabled or self.promotion_enabled or self.self_healing_enabled

    def ledger_rules(self) -> Rules:
        if self.ledger_floats not in ("round", "refuse"):
            raise ConfigError("ledger_floats", f"{shown(self.ledger_floats)} is neither 'round' nor 'refuse'")
        if not isinstance(self.account_floors, Mapping):
            raise ConfigError("account_floors", f"{shown(self.account_floors)} does not map accounts to amounts")
        floors = {}
        for account, amount in self.account_floors.items():
            if account not in ACCOUNTS:
                raise ConfigError("account_floors", f"there is no account {shown(account)}")
            try:
                floors[account] = to_minor(amount, f"account_floors[{account}]").minor
            except AmountError as error:
                raise ConfigError(error.field, f"{error.value!r} {error.problem}") from None
        return Rules(self.ledger_floats, floors)

    def guard_settings(self) -> GuardSettings:
        return GuardSettings(
            max_fund_drawdown_pct=self.max_fund_drawdown_pct,
            max_strategy_drawdown_pct=self.max_strategy_drawdown_pct,
            kill_confirm_ticks=self.kill_confirm_ticks,
            kill_action=self.kill_action,
            lease_s=self.lease_s,
            max_blind_s=self.max_blind_s,
        )

    def promotion_settings(self) -> PromotionSettings:
        return PromotionSettings(
            ladder=self.promotion_ladder,
            policy=self.promotion_policy,
            min_paper_days=self.min_paper_days,
            min_trades=self.min_trades,
            min_sharpe=self.min_sharpe,
            max_drawdown_pct=self.max_drawdown_pct,
            min_win_rate=self.min_win_rate,
        )

    def oversight_settings(self) -> OversightSettings:
        return OversightSettings(
            recovery_every_ticks=self.recovery_every_ticks,
            promotion_every_ticks=self.promotion_every_ticks,
            ledger=self.ledger_enabled,
            promotion=self.promotion_enabled,
            recovery=self.self_healing_enabled,
            alerts=self.alerts_enabled,
            status=self.status_port is not None,
            fees=FeeSettings(self.management_fee_bps, self.performance_fee_pct, self.crystallise_every_days),
        )


def _is_number(value: object) -> bool:
    """A finite one: an int that no float holds would break the arithmetic just as infinity does."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _check_name(field: str, value: object, limit: int) -> None:
    """The name becomes a file's name."""
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= limit
        or not value.replace("-", "").replace("_", "").isalnum()
    ):
        raise ConfigError(field, f"{value!r} is not 1 to {limit} letters, digits, - or _")
