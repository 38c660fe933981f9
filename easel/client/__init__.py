"""The typed client of Easel's gateway: see `Client`."""

from easel.client.answers import (
    Classification,
    Embedding,
    Embeddings,
    Explanation,
    Label,
    RankedImage,
    Timing,
    Verification,
)
from easel.client.client import Client
from easel.client.control import Control
from easel.client.errors import EaselClientError, FieldViolation, ItemError
from easel.client.events import (
    Admitted,
    BestOfEvent,
    Blocked,
    CandidateFailed,
    CandidateFinished,
    CandidatePruned,
    CandidateScored,
    CandidateStepped,
    Failed,
    GeneratedImage,
    GenerateEvent,
    Preview,
    RankedCandidate,
    Ranking,
    Refused,
    Started,
    Step,
    Stopped,
)
from easel.client.picture import Picture
from easel.client.requests import GenerateOptions

__all__ = [
    "Admitted",
    "BestOfEvent",
    "Blocked",
    "CandidateFailed",
    "CandidateFinished",
    "CandidatePruned",
    "CandidateScored",
    "CandidateStepped",
    "Classification",
    "Client",
    "Control",
    "EaselClientError",
    "Embedding",
    "Embeddings",
    "Explanation",
    "Failed",
    "FieldViolation",
    "GenerateEvent",
    "GenerateOptions",
    "GeneratedImage",
    "ItemError",
    "Label",
    "Picture",
    "Preview",
    "RankedCandidate",
    "RankedImage",
    "Ranking",
    "Refused",
    "Started",
    "Step",
    "Stopped",
    "Timing",
    "Verification",
]
