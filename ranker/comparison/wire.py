"""A report as its message. Paths of ``numbers`` are paths in it."""

from __future__ import annotations

from typing import Final

from easel.ranker.v1 import ranker_pb2
from ranker import wire
from ranker.comparison.better import Better, OnIntent, Verdict
from ranker.comparison.document import Document
from ranker.comparison.markdown import markdown
from ranker.comparison.page import page
from ranker.comparison.report import Report
from ranker.comparison.side import Side

_VERDICTS: Final = {
    Verdict.A_BETTER: ranker_pb2.COMPARISON_A_BETTER,
    Verdict.B_BETTER: ranker_pb2.COMPARISON_B_BETTER,
    Verdict.NOT_SEPARABLE: ranker_pb2.COMPARISON_NOT_SEPARABLE,
    Verdict.NOT_COMPARABLE: ranker_pb2.COMPARISON_NOT_COMPARABLE,
}


def answer(
    report: Report,
    found: Document,
    a: ranker_pb2.CatalogueModel,
    b: ranker_pb2.CatalogueModel,
) -> ranker_pb2.CompareResponse:
    """``a`` and ``b`` are the report's models with their scores, as messages."""
    return ranker_pb2.CompareResponse(
        a=a,
        b=b,
        verdict=_VERDICTS[report.verdict],
        a_better=wire.estimate(report.better.estimate),
        features=[
            ranker_pb2.FeatureRow(feature=row.feature, a=row.a, b=row.b, source=row.source)
            for row in report.features
        ],
        sentences=[sentence.text for sentence in found.sentences],
        markdown=markdown(found),
        html=page(found),
        verdict_sentences=[
            ranker_pb2.VerdictSentence(text=sentence.text, fields=sentence.fields)
            for sentence in found.sentences
        ],
        intent=report.intent,
        shared_intents=report.shared_intents,
        intents=[_intent(each) for each in report.intents],
        outcomes=_superiority(report.outcomes),
        votes=_superiority(report.votes),
        basis=report.basis.value,
        min_evidence=report.min_evidence,
        a_intents=sorted(report.a.intents),
        b_intents=sorted(report.b.intents),
        a_claims=_claims(report.a),
        b_claims=_claims(report.b),
    )


def _intent(each: OnIntent) -> ranker_pb2.IntentEvidence:
    return ranker_pb2.IntentEvidence(
        intent=each.intent,
        a_success=wire.estimate(each.a_success),
        b_success=wire.estimate(each.b_success),
        counted=each.counted,
    )


def _superiority(better: Better) -> ranker_pb2.Superiority:
    return ranker_pb2.Superiority(
        a_better=wire.estimate(better.estimate),
        a_evidence=better.a_evidence,
        b_evidence=better.b_evidence,
        certainty=better.certainty,
    )


def _claims(side: Side) -> ranker_pb2.ClaimCounts:
    claims = side.claims
    return ranker_pb2.ClaimCounts(
        verified=claims.verified,
        contradicted=claims.contradicted,
        unmeasured=claims.unmeasured,
    )
