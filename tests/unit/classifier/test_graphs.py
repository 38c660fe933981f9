import pytest

from services.classifier.trunk import GRAPHS_KEPT, Graphs


@pytest.fixture
def made() -> list[tuple[int, ...]]:
    return []


def graphs(made: list[tuple[int, ...]], depth: int = 9) -> Graphs[tuple[int, ...]]:
    def make(outputs: tuple[int, ...]) -> tuple[int, ...]:
        made.append(outputs)
        return outputs

    return Graphs(make, depth)


def test_the_whole_is_there_at_once_and_stays(made: list[tuple[int, ...]]) -> None:
    found = graphs(made)
    assert made == [(9,)]
    for layer in range(9):
        found.of((layer,))
    assert found.of((9,)) == found.whole == (9,)
    assert made.count((9,)) == 1


def test_the_last_used_are_kept(made: list[tuple[int, ...]]) -> None:
    found = graphs(made)
    for layer in range(GRAPHS_KEPT):
        found.of((layer,))
    found.of((0,))
    assert len(made) == 1 + GRAPHS_KEPT, "nothing was made twice"
    found.of((0, 1))  # one too many: that of layer 1 goes
    found.of((0,))
    assert len(made) == 2 + GRAPHS_KEPT
    found.of((1,))
    assert made[-1] == (1,)
