import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.classifier.labels import Labels
from services.core.errors import InvalidInput

LABELS = Labels(("red", "green", "crane", "crane"))
LOGITS = np.array([1.0, 3.0, 2.0, 0.0], np.float32)
FLOATS = hnp.arrays(np.float32, 4, elements=st.floats(-1e4, 1e4, width=32))


def test_best_first_with_the_probabilities_of_the_full_set() -> None:
    best = LABELS.best(LOGITS, top_k=2)
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert [(label.index, label.name) for label in best] == [(1, "green"), (2, "crane")]
    assert [label.score for label in best] == pytest.approx([expected[1], expected[2]])
    assert best[0].logit is None


def test_named_labels_keep_their_probabilities() -> None:
    among = LABELS.indices(("crane", "red", "crane"))
    best = LABELS.best(LOGITS, top_k=4, among=among, with_logits=True)
    full = {label.index: label.score for label in LABELS.best(LOGITS, top_k=4)}
    assert [label.index for label in best] == [2, 0, 3]
    assert [label.score for label in best] == [full[2], full[0], full[3]]
    assert [label.logit for label in best] == [2.0, 1.0, 0.0]


def test_a_threshold_leaves_out_what_is_below() -> None:
    assert [label.name for label in LABELS.best(LOGITS, top_k=4, threshold=0.2)] == [
        "green",
        "crane",
    ]
    assert LABELS.best(LOGITS, top_k=4, threshold=1.0) == ()


def test_ties_go_by_index() -> None:
    best = LABELS.best(np.zeros(4, np.float32), top_k=3)
    assert [label.index for label in best] == [0, 1, 2]


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(InvalidInput, match="'mauve'") as caught:
        LABELS.indices(("red", "mauve"))
    assert caught.value.field == "labels"


def test_multi_label_models_score_each_by_itself() -> None:
    best = Labels(("a", "b"), multi_label=True).best(np.array([0.0, 9e3], np.float32), top_k=2)
    assert [label.score for label in best] == [1.0, 0.5]


@pytest.mark.parametrize("count", [4, 80])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_temperature_changes_probabilities_alone(count: int, multi_label: bool) -> None:
    """Below and above the number of labels up to which plain numbers are quicker."""
    names = [str(index) for index in range(count)]
    logits = np.linspace(-3, 5, count).astype(np.float32)
    plain = Labels(names, multi_label=multi_label)
    warm = Labels(names, multi_label=multi_label, temperature=2.0)
    ours = warm.best(logits, top_k=count, with_logits=True)
    expected = plain.best(logits / np.float32(2), top_k=count)
    assert [label.index for label in ours] == [label.index for label in expected]
    assert [label.score for label in ours] == pytest.approx([label.score for label in expected])
    assert [label.logit for label in ours] == logits[::-1].tolist()


@given(FLOATS)
def test_probabilities_add_up_and_fall(logits: np.ndarray) -> None:
    scores = [label.score for label in LABELS.best(logits, top_k=4)]
    assert sum(scores) == pytest.approx(1.0)
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("count", [1, 4, 300])
def test_probabilities_by_index_are_those_of_the_best(
    count: int, multi_label: bool, temperature: float
) -> None:
    names = [str(number) for number in range(count)]
    labels = Labels(names, multi_label=multi_label, temperature=temperature)
    logits = np.linspace(-3.0, 5.0, count, dtype=np.float32)[::-1].copy()
    found = labels.probabilities(logits)
    assert found.shape == (count,)
    assert found.dtype == np.float32
    for label in labels.best(logits, top_k=count):
        assert found[label.index] == pytest.approx(label.score)
