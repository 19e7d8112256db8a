"""FundConfig: every setting of a fund, checked when it is made, with the field named.

All subsystems are off by default. Percentages end in `_pct`, basis points in `_bps`, seconds in
`_s`. The meaning of each setting stands where it is declared: here, or in the settings of the
subsystem that uses it (`parts`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fundops.actors.alert import AlertSettings
from fundops.actors.alert.secret_url import SecretUrl
from fundops.actors.guard import GuardSettings
from fundops.actors.ledger.accounts import ACCOUNTS, UNITS
from fundops.actors.ledger.events import Rules
from fundops.actors.oversight import FeeSettings, OversightSettings
from fundops.actors.promotion import (
    Capital,
    DefaultCriteria,
    PromotionPolicy,
    PromotionSettings,
    checked,
    policy_from,
)
from fundops.actors.recovery import RecoverySettings
from fundops.runtime import SECRET, YEAR_S, ConfigError, Settings, shown
from fundops.wire.controller import STALE_FEED_S
from fundops.wire.errors import AmountError, PolicyError
from fundops.wire.money import Amount, positive_minor, to_minor

__all__ = ["FundConfig", "home", "is_file_path"]

# As in a Host header, which browsers write in lower case.
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

# Settings that choose the policy, in whose place a whole one may stand.
_WHOLE = ("promotion_ladder", "promotion_policy")

# The metric that each setting limits in the default gates.
_METRIC_OF = {
    "min_paper_days": "days",
    "min_trades": "n_trades",
    "min_sharpe": "sharpe",
    "max_drawdown_pct": "max_drawdown",
    "min_win_rate": "win_rate",
}


def home() -> Path:
    """The folder of the funds' files: FUNDOPS_HOME, or ~/.fundops."""
    return Path(os.environ.get("FUNDOPS_HOME") or Path.home() / ".fundops")


def is_file_path(path: object) -> bool:
    """Whether it names a file; SQLite has other names for databases in memory, and for URIs.

    A path that no file system takes, with a zero byte or half of a surrogate pair, is none.
    """
    text = str(path)
    if not isinstance(path, str | Path) or text == ":memory:" or text.startswith("file:"):
        return False
    try:
        return text not in ("", ".") and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


class FundConfig(Settings, frozen=True, kw_only=True):
    """Settings of one fund. Raises: `ConfigError` naming the field."""

    parts = (GuardSettings, FeeSettings, DefaultCriteria, OversightSettings)

    total_capital: Annotated[
        Amount, Meta(description="units of the currency; the money that the fund begins with")
    ]
    alert_webhook_url: Annotated[
        str | SecretUrl | None,
        Meta(description="alerts are posted to it; kept as a SecretUrl", extra=SECRET),
    ] = None
    ledger_enabled: bool = False
    promotion_enabled: bool = False
    self_healing_enabled: bool = False

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            pattern=r"^(?=.*[^\W_])[\w-]+\Z",
            description="the fund's name, and the database file's",
            extra={"of": "letters, digits, - and _"},
        ),
    ] = "fund"
    currency: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=16,
            pattern=r"^[^\W_]+\Z",
            description="of all amounts; stored in the database, and the same ever after",
            extra={"of": "letters and digits"},
        ),
    ] = "USD"
    db_path: Annotated[
        str | Path | None,
        Meta(description="the database file; None: <name>.db in FUNDOPS_HOME or ~/.fundops"),
    ] = None
    mode: Annotated[
        Literal["act", "observe"],
        Meta(description="'observe' keeps the books and tells the engine nothing"),
    ] = "act"
    tick_interval_s: float | None = 1.0
    session: str = "UTC day"
    break_tolerance: float = 0.01
    max_correlation: float = 0.85
    var_budget: float | None = None
    max_failed_strategies: str | int | None = "max(3, 5%)"
    recovery_every_ticks: int = 10
    promotion_every_ticks: int = 60

    ledger_floats: Annotated[
        Literal["round", "refuse"],
        Meta(description="a float as an amount is rounded to 8 decimals, or refused"),
    ] = "round"
    account_floors: Annotated[
        Mapping[str, Amount],
        Meta(description="amounts that withdrawals, fee payments and posts leave in an account"),
    ] = {}

    max_fund_drawdown_pct: float = 15.0
    max_strategy_drawdown_pct: float = 25.0
    allow_tight_limits: Annotated[
        bool,
        Meta(description="accept a drawdown limit under 1 percent, which is 0.15 for 15 percent"),
    ] = False
    kill_confirm_ticks: int = 1
    kill_action: Literal["halt", "flatten", "freeze"] = "halt"
    kill_scope: Literal["live", "all"] = "live"
    flatten_confirm_ticks: int = 3
    lease_s: float = 30.0
    host_silent_s: float = 10.0
    max_blind_s: float = 60.0
    on_blind: Literal["reduce", "kill"] = "reduce"
    max_daily_loss_pct: float | None = None
    stale_feed_s: Annotated[
        float,
        Meta(gt=0, le=YEAR_S, description="seconds without data, of a feed without its own limit"),
    ] = STALE_FEED_S

    management_fee_bps: int = 0
    performance_fee_pct: float = 0.0
    crystallise_every_days: float = 30.0
    fee_posting: Literal["session", "tick"] = "session"

    promotion_ladder: Annotated[
        Literal["four-stage", "three-stage"],
        Meta(description="paper, shadow, live-small, live-scaled; or paper, shadow, live"),
    ] = "four-stage"
    promotion_policy: Annotated[
        Literal["guarded", "literal"],
        Meta(description="'guarded': more real money waits for a person; 'literal': it does not"),
    ] = "guarded"
    max_total_entitlement_pct: Annotated[
        float | None,
        Meta(
            gt=0,
            le=1_000_000,
            description="percent of the fund's capital that all strategies together are entitled"
            " to at most; None: no bound",
        ),
    ] = 100.0
    min_paper_days: float = 14
    min_trades: int = 50
    min_sharpe: float = 1.0
    max_drawdown_pct: float = 20.0
    min_win_rate: float = 0.45

    status_port: Annotated[
        int | None,
        Meta(ge=0, le=65_535, description="port of the status stream; None: none; 0: any free one"),
    ] = None
    status_token: Annotated[
        str | None,
        Meta(description="asked of its readers; None: made at first start; '': none", extra=SECRET),
    ] = None
    status_host: Annotated[
        str,
        Meta(description="the IP address that the status port is bound to, as 127.0.0.1 or ::1"),
    ] = "127.0.0.1"
    status_hosts: Annotated[
        tuple[str, ...],
        Meta(description="names under which a proxy offers the status port, in lower case"),
    ] = ()
    status_behind_proxy: Annotated[
        bool, Meta(description="a proxy with TLS stands before a status_host beyond loopback")
    ] = False
    control_socket: Annotated[
        bool, Meta(description="take commands from other processes of the same user")
    ] = True
    alert_log: Annotated[
        bool, Meta(description="also write alerts to the logger fundops.alert")
    ] = False
    alerts: Annotated[AlertSettings, Meta(description="the limits of the alert gates")] = (
        AlertSettings()
    )
    recovery: Annotated[RecoverySettings, Meta(description="how patient recovery is")] = (
        RecoverySettings()
    )

    promotion: Annotated[
        PromotionSettings | PromotionPolicy,
        Meta(description="what differs from promotion_policy, or a policy in its place"),
    ] = PromotionSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            positive_minor(self.total_capital, "total_capital")
            self.ledger_rules()
        except AmountError as error:
            raise ConfigError(error.field, f"{shown(error.value)} {error.problem}") from None
        if self.currency == UNITS:
            raise ConfigError("currency", f"{UNITS} counts the shares in a fund: choose another")
        self.oversight_settings()  # it checks one more rule
        self._check_promotion()
        if self.tick_interval_s is not None and self.lease_s < 2 * self.tick_interval_s:
            raise ConfigError(
                "lease_s",
                f"{self.lease_s:g} is under two ticks of {self.tick_interval_s:g} s:"
                " leases would end between them",
            )
        if self.tight_limits and not self.allow_tight_limits:
            field = self.tight_limits[0]
            raise ConfigError(
                field,
                f"{getattr(self, field):g} is less than 1 percent; 15 percent is 15."
                " allow_tight_limits=True accepts it",
            )
        self._check_status_host()
        if isinstance(self.alert_webhook_url, str):
            # A config is printed and logged, and the path of the URL is a credential.
            url = SecretUrl(self.alert_webhook_url)
            msgspec.structs.force_setattr(self, "alert_webhook_url", url)

    def _check_promotion(self) -> None:
        """A limit is given in one place, so that no reader wonders which one counts."""
        flat = [
            field.name
            for field in msgspec.structs.fields(type(self))
            if (field.name in DefaultCriteria.__struct_fields__ or field.name in _WHOLE)
            and getattr(self, field.name) != field.default
        ]
        if isinstance(self.promotion, PromotionPolicy):
            if flat:
                raise ConfigError(flat[0], "is given beside a whole policy in promotion")
        else:
            self._check_gates(flat, self.promotion)
        try:
            self.promotion_rules()
        except PolicyError as error:
            if error.field in self.__struct_fields__:
                raise
            raise PolicyError(f"promotion.{error.field}", error.problem) from None

    def _check_gates(self, flat: Sequence[str], settings: PromotionSettings) -> None:
        for stage, gate in settings.gates.items():
            own = {criterion.metric for criterion in gate.criteria or ()}
            for field in flat:
                if _METRIC_OF.get(field) in own:
                    raise ConfigError(field, f"is given beside the same in promotion.gates.{stage}")

    def _check_status_host(self) -> None:
        """The token travels in clear, so it stays on this machine or behind TLS."""
        try:
            address = self._status_address
        except ValueError:
            # A name may have several addresses, and others tomorrow.
            problem = f"{shown(self.status_host)} is no IP address, as 127.0.0.1 or ::1"
            raise ConfigError("status_host", problem) from None
        if not address.is_loopback:
            if not self.status_behind_proxy:
                problem = "is beyond loopback, and needs status_behind_proxy=True: a proxy with TLS"
                raise ConfigError("status_host", f"{self.status_host} {problem}")
            if self.status_token == "":
                problem = "may be empty on loopback only: anyone could read the fund"
                raise ConfigError("status_token", problem)
        for name in self.status_hosts:
            if HOST_NAME.fullmatch(name) is None:
                problem = f"{shown(name)} is no name of a host in lower case, without a port"
                raise ConfigError("status_hosts", problem)

    @property
    def status_names(self) -> frozenset[str]:
        """The names of the status port beside those of loopback."""
        address = self._status_address
        # In a URL an address of IPv6 stands in brackets, in its short form.
        name = str(address) if address.version == 4 else f"[{address.compressed}]"
        return frozenset((*self.status_hosts, *(() if address.is_loopback else (name,))))

    @property
    def _status_address(self) -> IPv4Address | IPv6Address:
        """Raises: `ValueError`."""
        return ip_address(self.status_host)

    @property
    def tight_limits(self) -> tuple[str, ...]:
        """The drawdown limits under 1 percent: a fraction was probably meant."""
        limits = ("max_fund_drawdown_pct", "max_strategy_drawdown_pct")
        return tuple(name for name in limits if getattr(self, name) < 1)

    # -- what each subsystem gets

    @property
    def capital_minor(self) -> int:
        """`total_capital` in minor units."""
        return positive_minor(self.total_capital, "total_capital").minor

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(self.db_path) if self.db_path is not None else home() / f"{self.name}.db"

    @classmethod
    def literal(cls, **settings: Any) -> FundConfig:
        """A config that follows the description to the letter, where the defaults are stricter.

        `settings` are those of `FundConfig`, and win. docs/decisions.md has the list.

        Raises: `ConfigError`.
        """
        switches: dict[str, Any] = {
            "promotion_policy": "literal",
            "promotion_ladder": "three-stage",
            "max_total_entitlement_pct": None,
            "fee_posting": "tick",
            "alerts": AlertSettings(critical_lane="shared", suppression_summary=False),
            "recovery": RecoverySettings(
                probation_s=0, max_starts_per_day=None, first_attempt="after_cooldown"
            ),
        }
        return cls(**{**switches, **settings})

    @classmethod
    def checked(cls, config: object) -> FundConfig:
        """The settings that a fund was given, `located`. Raises: `ConfigError`."""
        if not isinstance(config, cls):
            raise ConfigError("config", f"{shown(config)} is not a FundConfig")
        return config.located()

    def located(self) -> FundConfig:
        """The same settings with `db_path` absolute and without links.

        A fund uses these: after a change of the working folder, or of FUNDOPS_HOME, a relative path
        would lead to another file, and a link has no kill marker beside it.

        Raises: `ConfigError` for a database that is not a file, or when the working folder is gone.
        """
        if self.db_path is not None and not is_file_path(self.db_path):
            raise ConfigError("db_path", f"{shown(str(self.db_path))} is not the path of a file")
        try:
            return msgspec.structs.replace(self, db_path=Path(os.path.realpath(self.path)))
        except OSError as error:
            raise ConfigError("db_path", f"{self.path} cannot be located: {error}") from error

    @property
    def charges_fees(self) -> bool:
        """Whether the ledger books fees of the fund itself."""
        return self.ledger_enabled and bool(self.management_fee_bps or self.performance_fee_pct)

    @property
    def alerts_enabled(self) -> bool:
        """True with a channel, or with any subsystem that can raise an alert."""
        channels = self.alert_webhook_url is not None or self.alert_log
        return (
            channels or self.ledger_enabled or self.promotion_enabled or self.self_healing_enabled
        )

    def ledger_rules(self) -> Rules:
        """The choices of the ledger. Raises: `ConfigError` for an account that does not exist."""
        for account in self.account_floors:
            if account not in ACCOUNTS:
                raise ConfigError("account_floors", f"there is no account {shown(account)}")
        floors = {
            account: to_minor(amount, f"account_floors[{account}]").minor
            for account, amount in self.account_floors.items()
        }
        return Rules(self.ledger_floats, floors)

    def guard_settings(self) -> GuardSettings:
        """The limits of the guard."""
        return self.part(GuardSettings)

    def promotion_rules(self) -> PromotionPolicy:
        """The policy of promotion. Raises: `PolicyError` naming the place that makes no sense."""
        if isinstance(self.promotion, PromotionPolicy):
            return checked(self.promotion)
        return policy_from(
            self.promotion_policy,
            self.promotion_ladder,
            self.part(DefaultCriteria),
            self.promotion,
            calendar=self.session,
        )

    def promotion_capital(self) -> Capital:
        """The fund's capital, and the bound of all entitlements together."""
        return Capital(self.capital_minor, self.max_total_entitlement_pct)

    def oversight_settings(self) -> OversightSettings:
        """The tick's cadences, the fees, and which subsystems there are."""
        return self.part(
            OversightSettings,
            alerts_enabled=self.alerts_enabled,
            # A log reaches only a person who reads it.
            reaches_a_person=self.alert_webhook_url is not None,
            fees=self.part(FeeSettings),
        )
