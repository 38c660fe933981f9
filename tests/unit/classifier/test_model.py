from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.classifier.explanation import Explained, Method, Question
from services.classifier.model import Answer, ClassifierModel, Row
from services.classifier.network import Pass, Pooling, Reading
from services.classifier.preprocessing import Pixels
from services.classifier.temperature import CALIBRATION_FILE
from services.core.engine import RowFailed
from services.core.errors import FailedPrecondition, ModelFault, NotReady
from tests.unit.classifier.fakes import (
    DEPTH,
    FILES,
    GRID,
    HIDDEN,
    LABELS,
    FakeExplainer,
    FakeNetwork,
)


def picture(red: int = 0, green: int = 0, blue: int = 0) -> np.ndarray:
    return np.full((8, 8, 3), (red, green, blue), np.uint8)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def model(network: FakeNetwork) -> ClassifierModel:
    model = ClassifierModel(network, lambda: FILES, now=lambda: 7.0)
    model.load()
    return model


def step(model: ClassifierModel, *rows: Row) -> list[Answer]:
    answers = model.step(model.plan(rows[0])[0], rows)
    assert len(answers) == len(rows)
    return [answer for answer in answers if isinstance(answer, Answer)]


def test_nothing_is_known_before_load() -> None:
    with pytest.raises(NotReady):
        _ = ClassifierModel(FakeNetwork(), lambda: FILES).loaded


def test_load_tells_which_files(model: ClassifierModel) -> None:
    assert (model.loaded.files, model.loaded.at) == (FILES, 7.0)


def test_load_reads_the_models_temperature(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text('{"temperature": 2.5}')
    model = ClassifierModel(FakeNetwork(), lambda: replace(FILES, directory=tmp_path))
    model.load()
    assert model.loaded.labels.temperature == 2.5


def test_rows_that_run_equally_deep_share_a_key(model: ClassifierModel) -> None:
    def key(row: Row) -> object:
        (stage,) = model.plan(row)
        return stage.key

    blank = picture()
    head = key(Row(blank, head=True))
    assert key(Row(blank, readings=(Reading(0), Reading(DEPTH)))) == head
    assert key(Row(blank, readings=(Reading(0), Reading(1)))) == key(
        Row(blank, readings=(Reading(1, Pooling.MEAN),))
    )
    assert key(Row(blank, readings=(Reading(1),))) != head


def test_each_row_of_a_mixed_batch_gets_what_it_asked_for(model: ClassifierModel) -> None:
    last = Reading(DEPTH, Pooling.PATCH, final_norm=True)
    first = Reading(0)
    red, both, green = step(
        model,
        Row(picture(red=255), head=True),
        Row(picture(), readings=(last, first)),
        Row(picture(green=255), head=True, readings=(first,)),
    )
    assert red.logits is not None
    assert green.logits is not None
    assert (int(red.logits.argmax()), int(green.logits.argmax())) == (0, 1)
    assert both.logits is None
    assert [vector.shape for vector in both.vectors] == [(*GRID, HIDDEN), (HIDDEN,)]
    assert [float(vector.flat[0]) for vector in both.vectors] == [DEPTH + 0.5, 0.0]
    assert (len(red.vectors), len(green.vectors)) == (0, 1)


def test_a_pass_ends_at_the_deepest_layer_that_is_read(
    model: ClassifierModel, network: FakeNetwork
) -> None:
    step(model, Row(picture(), readings=(Reading(1), Reading(0))))
    assert network.deepest == [1]


def test_numbers_that_are_not_finite_fail_their_row_alone(model: ClassifierModel) -> None:
    class Broken(FakeNetwork):
        def run(
            self, pixels: Sequence[Pixels], *, head: bool, readings: Mapping[Reading, Sequence[int]]
        ) -> Pass:
            del head, readings
            logits = np.zeros((len(pixels), len(LABELS)), np.float32)
            logits[0] = np.nan
            return Pass(logits, {})

    model = ClassifierModel(Broken(), lambda: FILES)
    model.load()
    rows = [Row(picture(), head=True), Row(picture(), head=True)]
    failed, fine = model.step(model.plan(rows[0])[0], rows)
    assert isinstance(failed, RowFailed)
    assert isinstance(failed.cause, ModelFault)
    assert isinstance(fine, Answer)


def test_warm_up_tries_several_sizes(model: ClassifierModel) -> None:
    batches = list(model.warm_up())
    assert [len(batch) for batch in batches] == [1, 1, 2, 4, 8]
    assert batches[0][0].pixels.shape == (8, 8, 3)


def explaining(explainer: FakeExplainer | None) -> ClassifierModel:
    model = ClassifierModel(FakeNetwork(), lambda: FILES, explainer=explainer)
    model.load()
    return model


def question(method: Method, *among: int, red: int = 0, green: int = 0) -> Row:
    return Row(picture(red=red, green=green), question=Question(method, among))


def test_nothing_is_loaded_before_the_first_question() -> None:
    explainer = FakeExplainer()
    model = explaining(explainer)
    assert explainer.loads == 0
    assert (model.bytes_in_memory, model.bytes_for_questions) == (4, 4)
    model.prepare_questions()
    assert explainer.loads == 1
    assert (model.bytes_in_memory, model.bytes_for_questions) == (8, 0)
    model.close()
    assert explainer.closed


def test_a_model_with_nothing_to_answer_questions() -> None:
    with pytest.raises(FailedPrecondition, match="The fake backend of this server cannot"):
        explaining(None).check_questions()


def test_questions_share_a_key_by_their_method() -> None:
    model = explaining(FakeExplainer())

    def stage(row: Row) -> tuple[str, object]:
        (only,) = model.plan(row)
        return only.name, only.key

    rollout = stage(question(Method.ROLLOUT))
    assert rollout == ("explain", "explain rollout")
    assert stage(question(Method.ROLLOUT, 3, green=9)) == rollout
    assert stage(question(Method.GRADIENT)) == ("explain", "explain gradient")


def test_each_question_is_of_its_own_outputs() -> None:
    explainer = FakeExplainer()
    model = explaining(explainer)
    rows = [
        question(Method.GRADIENT, red=255, green=200),
        question(Method.GRADIENT, 1, 3, red=255, green=200),
        question(Method.GRADIENT, 2),
    ]
    first, second, third = step(model, *rows)
    assert explainer.batches == [(Method.GRADIENT, 3)]
    for answer in (first, second, third):
        assert answer.relevance is not None
        assert answer.relevance.shape == GRID
        assert answer.relevance.sum() == pytest.approx(1.0)
        assert answer.logits is not None
    assert third.relevance is not None
    assert third.relevance[0, 0] == 1.0


def test_an_explanation_that_is_not_finite_fails_its_row_alone() -> None:
    class Broken(FakeExplainer):
        def explain(
            self, pixels: Sequence[Pixels], method: Method, among: Sequence[Sequence[int]]
        ) -> Explained:
            found = super().explain(pixels, method, among)
            found.relevance[0] = np.nan
            found.logits[1] = np.inf
            return found

    model = explaining(Broken())
    rows = [question(Method.ROLLOUT)] * 3
    first, second, fine = model.step(model.plan(rows[0])[0], rows)
    assert isinstance(first, RowFailed)
    assert isinstance(second, RowFailed)
    assert isinstance(fine, Answer)
