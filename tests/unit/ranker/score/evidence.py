"""Evidence, rules and scores drawn at random."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from hypothesis import strategies as st

from ranker.score.components import COMPONENTS, Terms
from ranker.score.evidence import Claims, Ecosystem, Evidence, Measurement, Outcomes, Standing
from ranker.score.formula import Rules
from ranker.score.weights import Weights

DAYS = st.dates(date(2015, 1, 1), date(2030, 1, 1))
NAMES = st.text(max_size=12)
COUNTS = st.integers(0, 10_000)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    below, equal, rest = draw(COUNTS), draw(st.integers(0, 5)), draw(COUNTS)
    value = draw(st.integers(0, 10**12))
    return Standing(draw(NAMES), value, below, equal, below + equal + rest)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    successes = draw(COUNTS)
    return Measurement(draw(NAMES), successes, successes + draw(COUNTS))


@st.composite
def outcomes(draw: st.DrawFn) -> Outcomes:
    recorded = draw(st.integers(0, 2000))
    weight = draw(st.floats(0, 1)) * recorded
    share = draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
    return Outcomes(weight * share, weight * (1 - share), recorded)


LISTS = st.lists(NAMES, max_size=5).map(tuple)
CLAIMS = st.builds(Claims, COUNTS | st.integers(0, 8), COUNTS | st.integers(0, 8), COUNTS)
EVIDENCE = st.builds(
    Evidence,
    model=NAMES,
    type=NAMES,
    as_of=DAYS,
    usage=st.lists(standings(), max_size=3).map(tuple),
    claims=CLAIMS,
    measurements=st.lists(measurements(), max_size=3).map(tuple),
    ecosystem=st.builds(Ecosystem, LISTS, LISTS, LISTS),
    outcomes=outcomes(),
    released=st.none() | DAYS,
)


@st.composite
def weights(draw: st.DrawFn) -> Weights:
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=4, max_size=4)))
    parts = [high - low for low, high in zip([0, *cuts], [*cuts, 10_000], strict=True)]
    return Weights.of({name: part / 10_000 for name, part in zip(COMPONENTS, parts, strict=True)})


RULES = st.builds(
    Rules,
    weights(),
    st.builds(Terms, st.integers(1, 20), st.floats(1, 4000)),
    st.integers(0, 100).map(lambda percent: Decimal(percent) / 100),
)
