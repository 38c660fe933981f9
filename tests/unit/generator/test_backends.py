from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.core.config import load_settings
from services.core.errors import FailedPrecondition
from services.generator import backends
from services.generator.backends import Backend, Host, Wanted, choose
from services.generator.config import GeneratorSettings
from services.generator.network import Feature, Look, needs_of
from services.generator.toolchain import NO_TOOLS, Toolchain

TOOLS = Toolchain(
    cxx="g++ 12.2.0",
    cc="/usr/bin/gcc",
    triton="3.6.0",
    headers=True,
)
HOST = Host(
    cuda=False,
    x86=True,
    bfloat16=True,
    pays=True,
    openvino="2026.4.1",
    nncf="3.4.0",
    toolchain=TOOLS,
)
BARE = replace(HOST, openvino=None)
OLD = replace(HOST, bfloat16=False, pays=False)
SLOW = replace(HOST, pays=False)
ARM = replace(HOST, x86=False)
GPU = replace(HOST, cuda=True)


@pytest.mark.parametrize(
    ("wanted", "host", "backend", "precision"),
    [
        (Wanted(), HOST, Backend.OPENVINO, "bfloat16"),
        (Wanted(), OLD, Backend.OPENVINO, "float32"),
        (Wanted(), SLOW, Backend.OPENVINO, "float32"),
        (Wanted(precision="bfloat16"), SLOW, Backend.OPENVINO, "bfloat16"),
        (Wanted(), BARE, Backend.PYTORCH, "bfloat16"),
        (Wanted(), replace(BARE, bfloat16=False, pays=False), Backend.PYTORCH, "float32"),
        (Wanted(), ARM, Backend.PYTORCH, "bfloat16"),
        (Wanted(), GPU, Backend.PYTORCH, "auto"),
        (Wanted(device="cpu"), GPU, Backend.OPENVINO, "bfloat16"),
        (Wanted(precision="float32"), HOST, Backend.OPENVINO, "float32"),
        (Wanted(precision="float16"), HOST, Backend.PYTORCH, "float16"),
        (Wanted(precision="bfloat16"), OLD, Backend.PYTORCH, "bfloat16"),
        (Wanted(backend="pytorch"), HOST, Backend.PYTORCH, "bfloat16"),
        (Wanted(backend="openvino"), ARM, Backend.OPENVINO, "bfloat16"),
        (
            Wanted(backend="pytorch", device="cuda:1", precision="float16"),
            GPU,
            Backend.PYTORCH,
            "float16",
        ),
    ],
)
def test_what_is_chosen(wanted: Wanted, host: Host, backend: Backend, precision: str) -> None:
    choice = choose(wanted, host)
    assert (choice.backend, choice.precision) == (backend, precision)
    assert choice.device == ("cpu" if wanted.device == "cpu" or not host.cuda else wanted.device)
    assert choice.why


@pytest.mark.parametrize("backend", ["auto", "openvino"])
@pytest.mark.parametrize(("host", "beside"), [(HOST, "bfloat16"), (SLOW, "float32")])
def test_int8_is_chosen_only_when_it_is_asked_for(backend: str, host: Host, beside: str) -> None:
    assert not choose(Wanted(backend=backend), host).int8
    choice = choose(Wanted(backend=backend, precision="int8"), host)
    assert (choice.backend, choice.precision, choice.int8) == (Backend.OPENVINO, beside, True)


@pytest.mark.parametrize(
    ("wanted", "host", "device", "precision", "by"),
    [
        (Wanted(compiled=True), HOST, "cpu", "bfloat16", {"c++": "g++ 12.2.0"}),
        (Wanted(compiled=True, backend="pytorch"), SLOW, "cpu", "float32", {"c++": "g++ 12.2.0"}),
        (Wanted(compiled=True, precision="float16"), ARM, "cpu", "float16", {"c++": "g++ 12.2.0"}),
        (Wanted(compiled=True, device="cpu"), GPU, "cpu", "bfloat16", {"c++": "g++ 12.2.0"}),
        (Wanted(compiled=True), GPU, "auto", "auto", {"triton": "3.6.0"}),
        (Wanted(compiled=True, device="cuda:1"), GPU, "cuda:1", "auto", {"triton": "3.6.0"}),
    ],
)
def test_what_is_compiled_is_pytorchs(
    wanted: Wanted, host: Host, device: str, precision: str, by: dict[str, str]
) -> None:
    choice = choose(wanted, host)
    assert choice.backend is Backend.PYTORCH
    assert (choice.device, choice.precision, choice.compiled_by) == (device, precision, by)
    assert choice.why
    assert choose(replace(wanted, compiled=False), host).compiled_by is None


@pytest.mark.parametrize(
    ("wanted", "host", "told"),
    [
        (Wanted(backend="openvino"), BARE, r"pip install 'easel\[generator,openvino\]'"),
        (Wanted(backend="openvino"), GPU, "say device cpu"),
        (Wanted(backend="openvino", device="cuda:0"), HOST, "say device cpu"),
        (Wanted(backend="openvino", precision="float16"), HOST, "float16"),
        (Wanted(backend="openvino", precision="bfloat16"), OLD, "bfloat16"),
        (Wanted(precision="int8"), BARE, r"'easel\[generator,openvino,quantize\]'"),
        (Wanted(precision="int8"), replace(HOST, nncf=None), r"quantize\]'"),
        (Wanted(precision="int8"), GPU, "say device cpu"),
        (Wanted(precision="int8", device="cuda:1"), GPU, "say device cpu, not 'cuda:1'"),
        (Wanted(precision="int8", backend="pytorch"), HOST, "openvino, not 'pytorch'"),
        (
            Wanted(backend="openvino", compiled=True),
            HOST,
            "^EASEL_GENERATOR_COMPILE .* say backend auto or pytorch, not 'openvino'",
        ),
        (Wanted(precision="int8", compiled=True), HOST, "int8 .* leave one of them unset"),
        (
            Wanted(compiled=True),
            replace(HOST, toolchain=replace(TOOLS, cxx=None)),
            r"^EASEL_GENERATOR_COMPILE needs a C\+\+ compiler",
        ),
        (
            Wanted(compiled=True),
            replace(GPU, toolchain=replace(TOOLS, triton=None)),
            "^EASEL_GENERATOR_COMPILE needs triton",
        ),
    ],
)
def test_what_cannot_be_had_is_told(wanted: Wanted, host: Host, told: str) -> None:
    with pytest.raises(FailedPrecondition, match=told):
        choose(wanted, host)


def test_a_whole_pipeline_is_not_said_to_run_in_openvino() -> None:
    backends.check_pipeline(Wanted(), {})
    backends.check_pipeline(Wanted(backend="pytorch"), {})
    with pytest.raises(FailedPrecondition, match="say backend auto or pytorch"):
        backends.check_pipeline(Wanted(backend="openvino"), {})
    with pytest.raises(FailedPrecondition, match="COMPILE is for models of the step engine"):
        backends.check_pipeline(Wanted(compiled=True), {})
    with pytest.raises(FailedPrecondition, match="int8 is for models of the step engine"):
        backends.check_pipeline(Wanted(precision="int8"), {})


@pytest.mark.parametrize(
    "name",
    [
        "adapters_dir",
        "controls_dir",
        "embeddings_dir",
        "ip_adapter_directory",
        "preview_decoder",
    ],
)
def test_a_whole_pipeline_takes_nothing_of_the_step_engine(tmp_path: Path, name: str) -> None:
    settings = load_settings(GeneratorSettings, environ={}, **{name: str(tmp_path)})
    with pytest.raises(FailedPrecondition, match=f"^EASEL_GENERATOR_{name.upper()} is for models"):
        backends.check_pipeline(settings.wanted, settings.engine_only)


def test_settings_that_are_not_made_stand_in_no_way() -> None:
    assert load_settings(GeneratorSettings, environ={}).engine_only == {}


def test_without_openvino_it_is_pytorch_and_says_so(tmp_path: Path) -> None:
    network = backends.load(
        DEMO_GENERATOR,
        wanted=Wanted(device="cpu"),
        store=ArtifactStore(tmp_path),
        host=lambda _wanted: replace(BARE, bfloat16=False, pays=False),
    )
    told = network.effective
    assert (told.backend, told.precision) == ("pytorch", "float32")
    assert told.notes["backend_why"] == "openvino is not installed"
    assert list(tmp_path.iterdir()) == []


def test_the_host_is_what_this_machine_has() -> None:
    host = Host.here()
    assert host.cuda == torch.cuda.is_available()
    assert host.bfloat16 or not host.pays
    assert host.openvino is None or host.openvino.startswith("20")


def test_compilers_are_asked_only_where_something_is_to_be_compiled() -> None:
    assert Host.here().toolchain == NO_TOOLS
    assert Host.here(Wanted(compiled=True)).toolchain == Toolchain.here() != NO_TOOLS


def test_what_a_look_needs() -> None:
    plain = Look(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 7, 2))
    assert needs_of(plain) == frozenset()
    added = replace(plain, pooled=torch.zeros(1, 3), time_ids=torch.zeros(1, 6))
    assert needs_of(added) == frozenset({Feature.ADDED})
