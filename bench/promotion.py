"""How much CPU time does it take to judge 10,000 strategies, five criteria each?

A strategy is judged in paper, shadow or live-small, under the default policy, on measured figures
that are partly good enough. Each judgement is the whole `Evaluation`: criteria, advisories, all
reasons, the line for a person, and its hash. The second case reads the same strategies and judges
their limits that demote only, as each tick does. Nothing is written, and no actor runs.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from functools import partial

import msgspec

from fundops.actors.promotion import Capital, policy_of
from fundops.actors.promotion.evaluation import evaluate
from fundops.actors.promotion.limits import breach
from fundops.actors.promotion.strategy import Episode, Metric, Strategy
from fundops.actors.promotion.track import Track
from fundops.runtime import DAY_US
from fundops.wire.promotion import PromotionStage

from .harness import Case, Figure, Result, Stopwatch, machine, measure

__all__ = ["ALL", "EVALUATED", "LIMITS", "QUESTION", "run", "strategies"]

QUESTION = "How much CPU time does it take to judge 10,000 strategies, five criteria each?"
EVALUATED = "evaluated: verdict, advisories, reasons"
LIMITS = "limits that demote, alone"
ALL = "10,000 evaluations"

STRATEGIES = 10_000
REPETITIONS = 7
SEED = 1
NOW_US = 1_700_000_000_000_000
MINOR = 10**8

STAGES = (PromotionStage.Paper, PromotionStage.Shadow, PromotionStage.Live_Small)
POLICY = policy_of()
CAPITAL = Capital(10_000_000 * MINOR, 100.0)


def strategies(count: int) -> tuple[Strategy, ...]:
    """Strategies with measured figures, the same ones at each call."""
    rng = random.Random(SEED)
    return tuple(_strategy(number, rng) for number in range(count))


def _strategy(number: int, rng: random.Random) -> Strategy:
    sessions, trades = rng.randrange(2, 200), rng.randrange(1, 120)
    mean, spread = rng.gauss(0.0005, 0.0005), rng.uniform(0.005, 0.02)
    m2 = (sessions - 1) * spread * spread
    track = Track(
        begun=True,
        sessions=sessions,
        mean=mean,
        m2=m2,
        m4=3.2 * m2 * m2 / sessions,
        trades=trades,
        wins=rng.randrange(trades),
        max_drawdown=rng.uniform(0, 0.22),
    )
    at_us = NOW_US - 3_600_000_000
    measured = {
        name: Metric(value, at_us, "engine", sessions)
        for name, value in track.metrics(POLICY.sessions_per_year).items()
    }
    episode = Episode(1, NOW_US - sessions * DAY_US // 4, track=track, measured=measured)
    return Strategy(
        f"id{number}",
        f"strategy_{number}",
        rng.choice(STAGES),
        0,
        episode,
        budget_minor=1_000 * MINOR,
        closes_us=(at_us - DAY_US, at_us),
    )


def _evaluated(subjects: Sequence[Strategy], count: int, watch: Stopwatch) -> int:
    checksum = 0
    with watch:
        found = [evaluate(one, POLICY, NOW_US, capital=CAPITAL) for one in subjects[:count]]
    for evaluation in found:
        assert len(evaluation.criteria) == 5
        checksum = zlib.crc32(msgspec.json.encode(evaluation), checksum)
    return checksum


def _limits(subjects: Sequence[Strategy], count: int, watch: Stopwatch) -> int:
    with watch:
        found = [breach(one, POLICY) for one in subjects[:count]]
    return zlib.crc32(msgspec.json.encode([down is not None for down in found]))


def run(scale: float = 1.0) -> Result:
    """Judge `scale` times 10,000 strategies."""
    count = max(1, round(STRATEGIES * scale))
    subjects = strategies(count)
    cases = [
        Case(EVALUATED, count, partial(_evaluated, subjects)),
        Case(LIMITS, count, partial(_limits, subjects)),
    ]
    rows = measure(cases, repetitions=REPETITIONS)
    all_s = STRATEGIES * rows[0].cpu_us_per_message / 1_000_000
    return Result(QUESTION, machine(), rows, figures=(Figure(ALL, all_s, "s of CPU"),))
