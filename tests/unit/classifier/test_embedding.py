import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.classifier.embedding import encode, normalized
from services.classifier.network import Pooling, Reading
from services.classifier.request import Dtype
from services.core.errors import InvalidInput

READING = Reading(2, Pooling.CLS)


def test_the_bytes_are_little_endian_numbers() -> None:
    vector = np.array([1.0, -2.5, 0.0], np.float32)
    wide = encode(vector, READING, normalize=False, dtype=Dtype.FLOAT32)
    half = encode(vector, READING, normalize=False, dtype=Dtype.FLOAT16)
    assert (wide.shape, wide.normalized) == ((3,), False)
    assert np.frombuffer(wide.data, "<f4").tolist() == vector.tolist()
    assert np.frombuffer(half.data, "<f2").tolist() == vector.tolist()


def test_patches_keep_their_places_and_each_gets_length_one() -> None:
    patches = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2)
    embedding = encode(patches, READING, normalize=True, dtype=Dtype.FLOAT32)
    decoded = np.frombuffer(embedding.data, "<f4").reshape(embedding.shape)
    assert embedding.shape == (2, 3, 2)
    assert np.linalg.norm(decoded, axis=-1) == pytest.approx(np.ones((2, 3)))
    assert decoded[1, 2] == pytest.approx(patches[1, 2] / np.linalg.norm(patches[1, 2]))


def test_what_does_not_fit_float16_is_refused() -> None:
    vector = np.array([1e6, 0.0], np.float32)
    with pytest.raises(InvalidInput) as caught:
        encode(vector, READING, normalize=False, dtype=Dtype.FLOAT16)
    assert (caught.value.field, caught.value.given) == ("dtype", "1000000")
    assert encode(vector, READING, normalize=True, dtype=Dtype.FLOAT16).normalized


@given(hnp.arrays(np.float32, 5, elements=st.floats(-1e6, 1e6, width=32)))
def test_lengths_are_one_or_zero(vector: np.ndarray) -> None:
    length = float(np.linalg.norm(normalized(vector).astype(np.float64)))
    assert length == pytest.approx(1.0 if vector.any() else 0.0, abs=1e-5)
