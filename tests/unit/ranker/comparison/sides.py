"""Models and evidence drawn at random, and two that are known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from hypothesis import strategies as st

from ranker.catalogue.model import Capability, Claim
from ranker.comparison.better import Better
from ranker.comparison.report import Evidence, Report, compare
from ranker.comparison.side import Fact, Side
from ranker.score import evidence as scoring
from ranker.score.components import Terms
from ranker.score.estimate import UNIT, Estimate, abstained
from ranker.score.formula import Rules, score
from ranker.score.log import Scored
from ranker.score.record import recorded
from ranker.score.weights import DEFAULT_WEIGHTS, Weights
from tests.unit.ranker.score.evidence import EVIDENCE, outcomes

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
RULES = Rules(Weights.of(DEFAULT_WEIGHTS["default"]), Terms(5, 730.0), Decimal("0.5"))
INTENTS = ("classify a picture", "find similar pictures", "make a picture", "Make  a Picture")
MIN_EVIDENCE = 5
# What would break a page, a table or a sentence if it were let.
HOSTILE = ("<script>alert(1)</script>", "a | b", "**bold** & `code`", "x leads on quality", "é\nz")


def scored(evidence: scoring.Evidence) -> Scored:
    found = score(evidence, RULES)
    return Scored(found, recorded(evidence, RULES, found), NOW)


NAMES = st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
CLAIMS = st.builds(
    Claim,
    name=NAMES,
    claimed=st.just("") | NAMES,
    measured=st.just("") | NAMES,
    source=NAMES,
    measured_at=st.none() | st.just(datetime(2026, 11, 1, tzinfo=UTC)),
    verified=st.booleans(),
).map(lambda claim: claim if claim.measured else replace(claim, verified=False))
CAPABILITIES = st.builds(
    Capability,
    id=NAMES,
    name=NAMES,
    intents=st.lists(st.sampled_from(INTENTS), min_size=1, max_size=3).map(tuple),
    limitations=st.lists(NAMES, max_size=2).map(tuple),
    claims=st.lists(CLAIMS, max_size=3).map(tuple),
)
FACTS = st.lists(
    st.builds(Fact, st.sampled_from(["licence", "price", "backend"]), NAMES, NAMES),
    max_size=3,
    unique_by=lambda fact: fact.name,
).map(tuple)


@st.composite
def sides(draw: st.DrawFn, id: str) -> Side:
    evidence = draw(EVIDENCE)
    return Side(
        id,
        draw(NAMES),
        draw(st.sampled_from(["classifier", "generator"])),
        draw(st.just(()) | st.lists(CAPABILITIES, min_size=1, max_size=3).map(tuple)),
        draw(FACTS),
        scored(evidence),
    )


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    if draw(st.booleans()):
        return abstained(draw(st.integers(0, 3)))
    low, value, high = sorted(draw(st.lists(st.integers(0, UNIT), min_size=3, max_size=3)))
    return Estimate(value / UNIT, low / UNIT, high / UNIT, draw(st.integers(1, 500)))


VOTES = st.builds(Better, estimates(), st.integers(0, 300), st.integers(0, 300))
# Now and then what separates is wanted: a model that always succeeds against one that never does.
EXTREMES = st.sampled_from([scoring.Outcomes(90.0, 0.0, 90), scoring.Outcomes(0.0, 90.0, 90)])


@st.composite
def reports(draw: st.DrawFn) -> Report:
    a, b = draw(sides("alpha")), draw(sides("beta"))
    if draw(st.sampled_from([True, True, True, False])):
        both = (Capability("both", "Both", intents=draw(st.sampled_from([INTENTS, INTENTS[:1]]))),)
        a, b = (replace(each, capabilities=each.capabilities + both) for each in (a, b))
    counts = {
        (side, " ".join(intent.lower().split())): draw(outcomes() | EXTREMES | EXTREMES)
        for side in ("alpha", "beta")
        for intent in INTENTS
        if draw(st.integers(0, 3))
    }
    votes = draw(VOTES)
    intent = draw(st.sampled_from(["", "", "", INTENTS[0], INTENTS[3]]))
    if draw(st.booleans()):
        a, b = b, a
    return compare(a, b, Evidence(counts, votes), intent=intent, min_evidence=MIN_EVIDENCE)


def lopsided(a_outcomes: scoring.Outcomes, b_outcomes: scoring.Outcomes, votes: Better) -> Report:
    """Two that have no number in common, and of whose parts each knows one that the other does
    not."""
    day = date(2026, 1, 1)
    a = _claiming(
        scoring.Evidence(
            "alpha", "classifier", NOW.date(), claims=scoring.Claims(8, 1, 2), released=day
        ),
        verified=4,
        contradicted=1,
        unmeasured=2,
    )
    b = _claiming(
        scoring.Evidence(
            "beta",
            "classifier",
            NOW.date(),
            ecosystem=scoring.Ecosystem(("gallery",), ("paper", "demo")),
            released=day.replace(year=2025),
        ),
        verified=3,
        contradicted=5,
        unmeasured=6,
    )
    counts = {("alpha", INTENTS[0]): a_outcomes, ("beta", INTENTS[0]): b_outcomes}
    return compare(a, b, Evidence(counts, votes), min_evidence=MIN_EVIDENCE)


def _claiming(evidence: scoring.Evidence, **counts: int) -> Side:
    kinds = {
        "verified": Claim("claim", "much", "much", verified=True),
        "contradicted": Claim("claim", "much", "little"),
        "unmeasured": Claim("claim", "much"),
    }
    claims = tuple(kinds[kind] for kind, count in counts.items() for _ in range(count))
    offered = Capability(f"{evidence.model}/it", "It", intents=INTENTS[:1], claims=claims)
    name = evidence.model
    return Side(name, name.title(), evidence.type, (offered,), (), scored(evidence))


def side(id: str, *, type: str = "classifier", intents: tuple[str, ...] = INTENTS[:2]) -> Side:
    claims = (Claim("top-1", "90.88 %", "85.16 %", "timm", NOW),)
    return Side(
        id,
        id.upper(),
        type,
        (
            Capability(
                f"{id}/classify",
                "Classify",
                intents=intents,
                limitations=("one label",),
                claims=claims,
            ),
        ),
        (Fact("licence", "Apache-2.0", "catalogue"),),
        scored(scoring.Evidence(id, type, NOW.date())),
    )
