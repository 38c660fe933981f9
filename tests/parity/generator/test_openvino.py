"""The OpenVINO backend against ``diffusers`` in PyTorch, in float32 and in bfloat16."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.generator import backends
from services.generator.adapters import AdapterUse
from services.generator.backends import Backend, Host, Wanted
from services.generator.image_adapter import ImageAdapterFolder
from services.generator.lora import AdaptableLayers, Adapter, LowRank, Outfit, Worn
from services.generator.model import AdapterFolder
from services.generator.modes import Stylize
from services.generator.network import Feature, Look, Network
from services.generator.outer import Deep
from services.generator.pytorch import TorchNetwork
from services.generator.pytorch import load as load_pytorch
from services.generator.request import Wish
from services.generator.samplers import Sampler
from tests.parity.generator.adapters import ATTENTION, MORE, TEXT, random_lora, save_peft
from tests.parity.generator.image_adapters import save_image_adapter
from tests.parity.generator.models import SMALL, SMALL_2, SMALL_XL, save_random_pipeline
from tests.parity.generator.pair import REFERENCE, TOLERANCE, WISHES, Pair, difference, pair
from tests.unit.generator.pictures import given, picture

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from services import openvino as runtime
from services.generator import conversion
from services.generator.branches import Reach
from services.generator.openvino import OpenVinoNetwork
from services.generator.wardrobe import MOST_NUMBERS, Adapted, Wardrobe

SIZES = {"1.x": SMALL, "2.x": SMALL_2, "XL": SMALL_XL}
TRAINED: dict[str, tuple[int, tuple[str, ...]]] = {
    "attention": (4, ATTENTION),
    "transformers": (9, (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")),
    "everything": (3, (*MORE, "conv2", "conv_out", "conv_shortcut", "conv", "linear_1")),
}
LARGE_RANK = 4096
CHOSEN = (Sampler.DDIM, Sampler.EULER_ANCESTRAL, Sampler.DPMPP_2M_KARRAS, Sampler.UNIPC)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("artifacts"))


def loader(store: ArtifactStore, precision: str) -> partial[Network]:
    wanted = Wanted(backend="openvino", device="cpu", precision=precision)
    return partial(backends.load, wanted=wanted, store=store, threads=1)


@pytest.fixture(scope="module", params=SIZES)
def small(
    request: pytest.FixtureRequest, store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    sizes: dict[str, Any] = SIZES[request.param]
    directory = save_random_pipeline(tmp_path_factory.mktemp("small"), sizes)
    return pair(directory, load=loader(store, "float32"))


@pytest.fixture(scope="module")
def demo(store: ArtifactStore) -> Pair:
    return pair(DEMO_GENERATOR, load=loader(store, "float32"))


@pytest.fixture(scope="module")
def demo_bfloat16(store: ArtifactStore) -> Pair:
    if not Host.here().bfloat16:
        pytest.skip("this processor does not compute in bfloat16")
    return pair(DEMO_GENERATOR, load=loader(store, "bfloat16"))


def test_a_mixed_batch_of_every_layout(small: Pair) -> None:
    assert small.model.loaded.network.effective.backend == "openvino"
    usable = [sampler for sampler in CHOSEN if sampler in small.model.limits.samplers]
    wishes = [WISHES[sampler] for sampler in usable]
    for wish, ours in zip(wishes, small.ours(*wishes), strict=True):
        assert difference(ours, small.theirs(wish)) <= TOLERANCE, wish.sampler


@pytest.mark.parametrize("count", [9, 33])
def test_rows_that_are_made_up_or_split_among_calls(small: Pair, count: int) -> None:
    """Of 9 rows 10 are run, of 33 18 and 16."""
    wish = Wish(prompt="a red star", steps=2, guidance_scale=1.0)
    wishes = [replace(wish, seed=number) for number in range(count)]
    pictures = small.ours(*wishes)
    assert len(pictures) == count
    for number in (0, count - 1):
        assert difference(pictures[number], small.theirs(wishes[number])) <= TOLERANCE


def test_layers_are_arranged_to_copy_less_and_compute_the_same() -> None:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(**SMALL["unet"]).eval()
    given = (torch.randn(2, 4, 8, 16), torch.tensor([3.0, 900.0]), torch.randn(2, 77, 32))
    with torch.inference_mode():
        theirs = unet(*given).sample
    model = conversion.unet_model(unet, sizes=6)
    assert not [layer for layer in model.get_ops() if "Split" in layer.get_type_name()]
    products = {
        layer.get_friendly_name(): layer.get_type_name()
        for layer in model.get_ops()
        if layer.get_type_name() in ("Convolution", "MatMul")
    }
    # Into and out of four transformers.
    of_places = [kind for name, kind in products.items() if ".proj_" in name]
    assert of_places == ["MatMul"] * 8
    ours = runtime.compiled(model, runtime.options("float32", 1))([part.numpy() for part in given])
    assert np.allclose(ours[0], theirs, atol=1e-4)


def test_alone_at_another_size(small: Pair) -> None:
    asked = Wish(prompt="a red star", width=24, height=32, steps=3, seed=5)
    assert difference(small.ours(asked)[0], small.theirs(asked)) <= TOLERANCE


def test_a_picture_of_the_smallest_size_comes_first(store: ArtifactStore) -> None:
    """Its deepest level is a single place, and what is made for that must not serve others."""
    ours = loader(store, "float32")(DEMO_GENERATOR)
    theirs = load_pytorch(DEMO_GENERATOR, device="cpu", precision="float32")
    chance = torch.Generator().manual_seed(0)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    into, out = theirs.adaptable[layer].T.shape
    change = LowRank(torch.randn(4, into, generator=chance), torch.randn(out, 4, generator=chance))
    worn = (Worn(Adapter("a", "sha256:a", {layer: change}), 0.1),)
    for side, outfit in product((4, 16, 4, 8, 16), ((), worn)):
        look = Look(
            latents=torch.randn((1, 4, side, side), generator=chance),
            timesteps=torch.tensor([500.0]),
            context=torch.randn((1, 32, 128), generator=chance),
            adapters=(outfit,),
        )
        with torch.inference_mode():
            assert torch.allclose(ours.predict(look), theirs.predict(look), atol=1e-4), side


def test_the_encoder(small: Pair) -> None:
    network = small.model.loaded.network
    assert isinstance(network, TorchNetwork)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand((2, 3, 32, 48), generator=generator) * 2 - 1
    with torch.inference_mode():
        ours = network.vae.encode(pictures).latent_dist
        theirs = small.pipeline.vae.encode(pictures).latent_dist
    assert torch.allclose(ours.mean, theirs.mean, atol=1e-4)
    assert torch.allclose(ours.std, theirs.std, atol=1e-4)


def test_what_is_beyond_plain_inputs_and_adapters_goes_to_pytorch(small: Pair) -> None:
    network = small.model.loaded.network
    assert isinstance(network, OpenVinoNetwork)
    worn = Feature.ADAPTERS
    assert network.route(frozenset(), (8, 8)) == "openvino"
    assert network.route(frozenset({worn}), (8, 8)) == "openvino"
    assert network.route(frozenset({worn, Feature.DEEP}), (8, 8)) == "pytorch"
    assert network.route(frozenset({Feature.STYLE}), (8, 8)) == "pytorch"
    small.ours(WISHES[Sampler.DDIM])
    look = _look(network)
    with torch.inference_mode():
        plain = network.predict(replace(look, adapters=((), (), ())))
        assert all(weight.is_meta for weight in network.unet.parameters()), "nothing is filled"
        kept = network.predict(replace(look, deep=Deep()))
    assert not any(weight.is_meta for weight in network.unet.parameters())
    assert torch.allclose(kept, plain, atol=1e-4)


def test_each_route_tells_what_computes_it(small: Pair) -> None:
    network = small.model.loaded.network
    plain, beyond = network.in_force("openvino"), network.in_force("pytorch")
    assert plain == network.effective
    assert plain.versions == {"openvino": plain.notes["openvino"]}
    assert (beyond.backend, beyond.precision) == ("pytorch", "float32")
    # Its pictures are decoded by OpenVINO too.
    assert beyond.versions == plain.versions
    wish = Wish(prompt="a red star", steps=4)
    order = small.order(wish)
    [work] = small.model.works(order)
    assert small.model.in_force(work) == plain
    [work] = small.model.works(replace(order, cache_interval=2))
    assert small.model.in_force(work) == beyond


def test_what_pytorch_needs_is_read_while_a_request_is_prepared(
    store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = save_random_pipeline(tmp_path_factory.mktemp("prepared"), SMALL)
    ours = pair(directory, load=loader(store, "float32"))
    network = ours.model.loaded.network
    assert isinstance(network, OpenVinoNetwork)
    held = ours.model.loaded.effective.bytes_in_memory
    plain = Wish(prompt="a red star", steps=4, seed=5)
    ours.model.works(ours.order(plain))
    assert all(weight.is_meta for weight in network.unet.parameters())
    assert ours.model.loaded.effective.bytes_in_memory == held
    ours.model.works(ours.order(replace(plain, cache_interval=2)))
    assert not any(weight.is_meta for weight in network.unet.parameters())
    more = sum(weight.nbytes for weight in network.unet.parameters())
    assert ours.model.loaded.effective.bytes_in_memory == held + more


@dataclass(frozen=True)
class Dressed:
    """A model with an adapter of each reach, by both backends."""

    ours: Pair
    reference: Pair

    @property
    def network(self) -> OpenVinoNetwork:
        network = self.ours.model.loaded.network
        assert isinstance(network, OpenVinoNetwork)
        return network

    def assert_same(self, *wishes: Wish) -> None:
        expected = self.reference.ours(*wishes)
        for number, painted in enumerate(self.ours.ours(*wishes)):
            assert difference(painted, expected[number]) <= TOLERANCE, wishes[number]


@pytest.fixture(params=SIZES)
def dressed(
    request: pytest.FixtureRequest, store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory
) -> Dressed:
    directory = save_random_pipeline(tmp_path_factory.mktemp("dressed"), SIZES[request.param])
    pipeline, folder = pair(directory).pipeline, tmp_path_factory.mktemp("adapters")
    for seed, (name, (rank, targets)) in enumerate(TRAINED.items()):
        lora = random_lora(pipeline.unet, seed, rank, targets)
        save_peft(folder / name, lora, {"r": rank, "lora_alpha": rank, "peft_type": "LORA"})
    text = {
        f"text_encoder.{key}": value
        for key, value in random_lora(pipeline.text_encoder, 1, 2, TEXT).items()
    }
    save_file(text, folder / "words.safetensors")
    adapters = AdapterFolder(folder)
    return Dressed(pair(directory, adapters, loader(store, "float32")), pair(directory, adapters))


def test_rows_with_and_without_adapters_share_a_batch(dressed: Dressed) -> None:
    plain = Wish(prompt="a red star", steps=3, seed=5, guidance_scale=3.0)
    worn = [
        (),
        (AdapterUse("attention"),),
        (AdapterUse("attention", 0.5),),
        (AdapterUse("transformers"), AdapterUse("attention", -0.5)),
        (AdapterUse("everything"),),
        (AdapterUse("everything", 0.3), AdapterUse("words")),
        (AdapterUse("words"),),
        (AdapterUse("transformers", 0.0),),
    ]
    wishes = [
        replace(plain, seed=seed, adapters=adapters, guidance_scale=1.0 if seed % 3 else 3.0)
        for seed, adapters in enumerate(worn)
    ]
    dressed.assert_same(*wishes)
    assert all(weight.is_meta for weight in dressed.network.unet.parameters())
    *changed, _ = [replace(wish, adapters=()) for wish in wishes[1:]]
    pairs = zip(dressed.ours.ours(*wishes[1:-1]), dressed.ours.ours(*changed), strict=True)
    assert all(difference(worn, bare) > TOLERANCE for worn, bare in pairs)


@pytest.mark.parametrize("dressed", ["1.x"], indirect=True)
def test_rows_of_both_routes_side_by_side(dressed: Dressed) -> None:
    plain = Wish(prompt="a red star", steps=4, seed=5, guidance_scale=3.0)
    attention = (AdapterUse("attention"),)
    dressed.assert_same(
        plain,
        replace(plain, cache_interval=2),
        replace(plain, adapters=attention),
        replace(plain, adapters=attention, cache_interval=2),
        replace(plain, seed=6),
    )


@pytest.mark.parametrize("dressed", ["1.x"], indirect=True)
def test_a_u_net_with_branches_is_made_while_a_request_is_prepared(dressed: Dressed) -> None:
    model, network = dressed.ours.model, dressed.network
    plain = Wish(prompt="a red star", steps=2, seed=5)

    def prepared(*names: str) -> int:
        wish = replace(plain, adapters=tuple(AdapterUse(name) for name in names))
        model.works(dressed.ours.order(wish))
        return model.loaded.effective.bytes_in_memory

    held = prepared()
    assert prepared("words") == held
    one = prepared("attention") - held
    # Half of a network in float32, as it lies in the file, is text encoders and autoencoder.
    assert one >= 0.9 * 4 * sum(weight.numel() for weight in network.unet.parameters())
    assert prepared("attention", "words") == held + one
    assert prepared("attention", "transformers") == held + 2 * one
    assert prepared("everything") == prepared("transformers", "everything") == held + 3 * one


def test_every_layer_may_have_a_branch_and_none_else_is_adaptable(small: Pair) -> None:
    network = small.model.loaded.network
    assert isinstance(network, OpenVinoNetwork)
    theirs = set(AdaptableLayers({"unet": small.pipeline.unet}).weights)
    assert {name for name in network.adaptable if name.startswith("unet.")} == theirs
    others = set(network.adaptable) - theirs
    known = replace(
        network, wardrobe=Wardrobe(network.compiled, _made, 0, frozenset({"unet.conv_in"}))
    )
    assert set(known.adaptable) == others | {"unet.conv_in"}


@pytest.mark.parametrize("dressed", ["1.x"], indirect=True)
def test_adapters_of_large_ranks_take_a_call_each(dressed: Dressed) -> None:
    """Of 12 rows, whose matrices would be more than 256 MiB together."""
    weights = dressed.network.adaptable
    outfits: list[Outfit] = []
    for name in "abc":
        draw = torch.Generator().manual_seed(ord(name))
        layers = {
            layer: LowRank(
                torch.randn((LARGE_RANK, weight.shape[1]), generator=draw) * LARGE_RANK**-0.5,
                torch.randn((weight.shape[0], LARGE_RANK), generator=draw) * LARGE_RANK**-0.5,
            )
            for layer, weight in weights.items()
            if layer.startswith("unet.") and layer.endswith(ATTENTION)
        }
        outfits += [(Worn(Adapter(name, f"sha256:{name}", layers), 0.1),)] * 4
    each = sum(len(m.down[0]) + len(m.up) for m in outfits[0][0].adapter.layers.values())
    assert 12 * LARGE_RANK * each > MOST_NUMBERS
    look = _look(dressed.network, rows=12)
    worn = replace(look, adapters=tuple(outfits))
    reference = dressed.reference.model.loaded.network
    with torch.inference_mode():
        ours, theirs = dressed.network.predict(worn), reference.predict(worn)
        assert torch.allclose(ours, theirs, atol=1e-4)
        plain = dressed.network.predict(look)
        assert not any(torch.allclose(ours[row], plain[row], atol=1e-2) for row in range(12))


def test_styles_that_are_read_go_to_pytorch(
    store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = save_random_pipeline(tmp_path_factory.mktemp("small"), SMALL)
    folder = save_image_adapter(tmp_path_factory.mktemp("adapter"), REFERENCE(directory).unet)
    adapter = ImageAdapterFolder(folder)
    ours, reference = (
        pair(
            directory,
            load=partial(
                backends.load,
                wanted=Wanted(backend=backend, device="cpu", precision="float32"),
                store=store,
                threads=1,
                image_adapter=adapter,
            ),
        )
        for backend in ("openvino", "pytorch")
    )
    mode = Stylize(given(picture(16, 16)), given(picture(16, 16, seed=5)), 0.0, 0.8)
    wishes = [Wish(prompt="a star", mode=mode, steps=4, seed=1), WISHES[Sampler.DDIM]]
    for painted, expected in zip(ours.ours(*wishes), reference.ours(*wishes), strict=True):
        assert difference(painted, expected) <= TOLERANCE


def test_the_demo_model_in_float32(demo: Pair) -> None:
    wishes = [WISHES[sampler] for sampler in CHOSEN]
    for wish, ours in zip(wishes, demo.ours(*wishes), strict=True):
        assert difference(ours, demo.theirs(wish)) <= TOLERANCE, wish.sampler


def test_the_demo_model_in_bfloat16_is_close_and_the_same_in_company(demo_bfloat16: Pair) -> None:
    assert demo_bfloat16.model.loaded.network.effective.precision == "bfloat16"
    wishes = [WISHES[sampler] for sampler in CHOSEN[:2]]
    mixed = demo_bfloat16.ours(*wishes)
    for wish, ours in zip(wishes, mixed, strict=True):
        assert difference(demo_bfloat16.ours(wish)[0], ours) <= TOLERANCE
        theirs = demo_bfloat16.theirs(wish).astype(int)
        assert np.abs(ours.astype(int) - theirs).mean() < 4


def test_the_second_start_converts_nothing(store: ArtifactStore, demo: Pair) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    again = loader(store, "float32")(DEMO_GENERATOR)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before
    first = demo.model.loaded.network.effective
    assert again.effective == first
    assert first.parameters == REFERENCE(DEMO_GENERATOR).effective.parameters


def test_auto_takes_openvino_where_it_is_right(store: ArtifactStore) -> None:
    host = Host.here()
    if not host.x86:
        pytest.skip("not an x86 processor")
    network = backends.load(DEMO_GENERATOR, wanted=Wanted(device="cpu"), store=store, threads=1)
    assert network.effective.backend == Backend.OPENVINO.value
    assert network.effective.precision == ("bfloat16" if host.pays else "float32")
    assert network.effective.threads == 1


def test_nothing_is_reported_to_openvinos_makers() -> None:
    importlib.import_module("services.generator.conversion")
    told = importlib.import_module("openvino.tools.ovc.telemetry_utils")
    assert told.tm.__name__.endswith("telemetry_stub")


def _made(reach: Reach) -> Adapted:
    raise AssertionError(f"nobody wears anything of {reach}")


def _look(network: TorchNetwork, rows: int = 3) -> Look:
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator)
    config = network.unet.config
    latents = draw((rows, network.unet_channels, 8, 16))
    context = draw((rows, 77, config.cross_attention_dim))
    times = torch.linspace(1.0, 999.0, rows)
    if config.addition_embed_type is None:
        return Look(latents, times, context)
    width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return Look(latents, times, context, draw((rows, width)), torch.full((rows, 6), 64.0))
