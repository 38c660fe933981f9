from pathlib import Path

import pytest

from services.core.config import ConfigError, load_settings
from services.core.errors import EaselError, FailedPrecondition, InvalidInput
from services.generator.config import GeneratorSettings
from services.generator.provenance import Signer, check_model, check_versions, read_keys

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
RECORD = b'{"a":1}'


def reason(record: bytes, signature: bytes, signer: Signer) -> tuple[type[EaselError], str]:
    with pytest.raises(EaselError) as caught:
        signer.check(record, signature)
    return type(caught.value), caught.value.reason


def test_what_is_signed_is_known() -> None:
    signer = Signer([OLD], "a test")
    signer.check(RECORD, signer.sign(RECORD))
    assert signer.sign(RECORD) == Signer([OLD], "elsewhere").sign(RECORD)
    assert len(signer.sign(RECORD)) == 40


@pytest.mark.parametrize("place", [8, 20, 39])
def test_a_changed_record_or_signature_is_a_forgery(place: int) -> None:
    signer = Signer([OLD], "a test")
    signature = signer.sign(RECORD)
    changed = bytearray(signature)
    changed[place] ^= 1
    assert reason(RECORD, bytes(changed), signer) == (InvalidInput, "FORGED_RECORD")
    assert reason(RECORD + b" ", signature, signer) == (InvalidInput, "FORGED_RECORD")


@pytest.mark.parametrize("length", [39, 41])
def test_a_signature_has_forty_bytes(length: int) -> None:
    signature = Signer([OLD], "a test").sign(RECORD) + b"x"
    told = reason(RECORD, signature[:length], Signer([OLD], "a test"))
    assert told == (InvalidInput, "FORGED_RECORD")


def test_no_signature_and_another_servers() -> None:
    signer = Signer([OLD], "a test")
    assert reason(RECORD, b"", signer) == (InvalidInput, "UNSIGNED_RECORD")
    foreign = Signer.drawn().sign(RECORD)
    assert reason(RECORD, foreign, signer) == (FailedPrecondition, "FOREIGN_SIGNATURE")


def test_keys_are_rotated_by_a_new_one_on_top(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{OLD.hex()}\n")
    earlier = Signer.from_file(file).sign(RECORD)
    file.write_text(f"# since today\n{NEW.hex()}\n\n{OLD.hex()}\n")
    signer = Signer.from_file(file)
    signer.check(RECORD, earlier)
    assert signer.sign(RECORD) == Signer([NEW], "a test").sign(RECORD)
    file.write_text(f"{NEW.hex()}\n")
    told = reason(RECORD, earlier, Signer.from_file(file))
    assert told == (FailedPrecondition, "FOREIGN_SIGNATURE")


@pytest.mark.parametrize("text", ["", "# nothing\n", "ab" * 31, "no hexadecimal", "é" * 64])
def test_a_bad_key_file_stops_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match="signing_key_file"):
        load_settings(GeneratorSettings, environ={}, signing_key_file=str(file))
    file.write_text("ab" * 32)
    loaded = load_settings(GeneratorSettings, environ={}, signing_key_file=str(file))
    assert str(loaded.signer).endswith("the key file")
    assert read_keys(file) == (b"\xab" * 32,)


def test_a_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(GeneratorSettings, environ={}, signing_key_file=str(tmp_path / "none"))


def test_records_of_others_are_told_apart() -> None:
    check_model("sha256:a", "sha256:a")
    with pytest.raises(FailedPrecondition, match="sha256:b") as caught:
        check_model("sha256:b", "sha256:a")
    assert caught.value.reason == "OTHER_MODEL"
    check_versions({"torch": "1"}, {"torch": "1"})
    for recorded in ({"torch": "2"}, {}, {"torch": "1", "easel": "9"}):
        with pytest.raises(FailedPrecondition, match=r"torch|easel") as caught:
            check_versions(recorded, {"torch": "1"})
        assert caught.value.reason == "OTHER_VERSION"
