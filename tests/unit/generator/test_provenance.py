import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.core.config import ConfigError, load_settings
from services.core.errors import EaselError, FailedPrecondition, InvalidInput
from services.generator.config import GeneratorSettings
from services.generator.provenance import (
    Signer,
    check_model,
    check_versions,
    device_class,
    processor,
    read_keys,
)
from tests.unit.generator.fakes import EFFECTIVE

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


@pytest.mark.parametrize(
    ("length", "why"), [(0, "UNSIGNED_RECORD"), (39, "FORGED_RECORD"), (41, "FORGED_RECORD")]
)
def test_a_signature_has_forty_bytes(length: int, why: str) -> None:
    signature = Signer([OLD], "a test").sign(RECORD) + b"x"
    with pytest.raises(InvalidInput) as caught:
        Signer([OLD], "a test").check(RECORD, signature[:length])
    error = caught.value
    assert (error.field, error.reason) == ("provenance.signature", why)
    assert (error.limit, error.given) == ("40 bytes", f"{length} bytes")


def test_another_servers_signature() -> None:
    signer = Signer([OLD], "a test")
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


XEON: dict[str, Any] = {
    "cpu_name": "Intel Xeon",
    "architecture": "x86_64",
    "avx2": True,
    "avx512_f": True,
    "avx512_vnni": True,
    "avx512_bf16": True,
    "amx_int8": False,
    "amx_bf16": False,
    "amx_fp16": False,
    "l2_cache_size": 2 << 20,
}


@pytest.mark.parametrize(
    ("capability", "told", "expected"),
    [
        ("AVX512", XEON, "Intel Xeon/AVX512+avx512_vnni+avx512_bf16/L2 2048 KiB"),
        (
            "AVX512",
            XEON | {"amx_int8": True, "amx_bf16": True},
            "Intel Xeon/AVX512+avx512_vnni+avx512_bf16+amx_int8+amx_bf16/L2 2048 KiB",
        ),
        # As ATEN_CPU_CAPABILITY says, which libraries beside PyTorch do not heed.
        ("DEFAULT", XEON, "Intel Xeon/DEFAULT+avx512_vnni+avx512_bf16/L2 2048 KiB"),
        (
            "AVX2",
            {"cpu_name": "AMD EPYC", "avx2": True, "l2_cache_size": 1 << 19},
            "AMD EPYC/AVX2/L2 512 KiB",
        ),
        (
            "DEFAULT",
            {"neon": True, "i8mm": True, "bf16": True},
            f"{platform.machine()}/DEFAULT+i8mm+bf16",
        ),
        ("AVX2", {"cpu_name": " A/B "}, "A B/AVX2"),
        ("AVX2", {}, f"{platform.machine()}/AVX2"),
    ],
)
def test_processors_that_choose_other_kernels_are_of_other_classes(
    capability: str, told: dict[str, Any], expected: str
) -> None:
    assert processor(capability, told) == expected


def test_a_device_class_ends_with_backend_and_threads() -> None:
    here = device_class(EFFECTIVE)
    assert here.startswith("cpu/")
    assert here.endswith("/fake/1 threads")
    assert device_class(replace(EFFECTIVE, threads=2)) != here


def test_a_gpu_is_told_by_its_name() -> None:
    effective = replace(EFFECTIVE, device="cuda:1", device_name="NVIDIA H100")
    assert device_class(effective) == "cuda/NVIDIA H100/fake"
