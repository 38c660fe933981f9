from dataclasses import replace

import numpy as np
import pytest
import torch

from services.core.engine import DeviceLost, RowFailed, Stage
from services.core.errors import FailedPrecondition, OutOfMemory
from services.generator.canvas import levels
from services.generator.diffusion import (
    CANVAS,
    DECODE,
    DENOISE,
    ENCODE,
    PREVIEW,
    Picture,
    PictureWork,
)
from services.generator.model import Bounds, GeneratorModel
from services.generator.modes import ImageToImage, Inpaint, MaskPolarity, Mode, TextToImage
from services.generator.network import Feature
from services.generator.request import (
    LongPrompt,
    PreviewMethod,
    PreviewWish,
    Reproducibility,
    Wish,
    resolve,
)
from services.generator.samplers import Sampler
from tests.unit.generator.defaults import default_dtype
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import FILES, SIDE, FakeNetwork, loaded_model
from tests.unit.generator.pictures import given, mask, picture


def works(model: GeneratorModel, wish: Wish) -> list[PictureWork]:
    return model.works(resolve(wish, model.limits, draw_seed=int))


def plan(wish: Wish) -> list[Stage]:
    model = loaded_model()
    return list(model.plan(works(model, wish)[0]))


def test_a_plain_plan() -> None:
    stages = plan(Wish(steps=7))
    assert [(stage.name, stage.steps) for stage in stages] == [
        (ENCODE, 1),
        (DENOISE, 7),
        (DECODE, 1),
    ]


def test_decoded_previews_are_stages_of_their_own() -> None:
    preview = PreviewWish(every=3, at_steps=(7,), method=PreviewMethod.DECODED)
    stages = plan(Wish(steps=7, preview=preview))
    assert [(stage.name, stage.steps) for stage in stages[1:]] == [
        (DENOISE, 3),
        (PREVIEW, 1),
        (DENOISE, 3),
        (PREVIEW, 1),
        (DENOISE, 1),
        (PREVIEW, 1),
        (DECODE, 1),
    ]


def test_guidance_costs_two_rows() -> None:
    assert plan(Wish(guidance_scale=1.0))[1].cost == 1.0
    assert plan(Wish(guidance_scale=1.5))[1].cost == 2.0


def test_costs_grow_with_the_area() -> None:
    preview = PreviewWish(at_steps=(3,), method=PreviewMethod.DECODED)
    asked = Wish(guidance_scale=2.0, preview=preview, width=2 * SIDE, height=SIDE // 2 * 3)
    assert [stage.cost for stage in plan(asked)] == [2.0, 6.0, 3.0, 6.0, 3.0]


def test_the_most_pixels_follow_the_model() -> None:
    def most(max_pixels: int | None) -> int:
        model = GeneratorModel(
            lambda: FILES, lambda _: FakeNetwork(), bounds=Bounds(max_pixels=max_pixels)
        )
        model.load()
        return model.limits.max_pixels

    assert most(None) == 4 * SIDE * SIDE
    assert most(9 * SIDE * SIDE) == 9 * SIDE * SIDE
    assert most(1) == SIDE * SIDE


def test_rows_share_a_key_unless_size_or_sequence_differ() -> None:
    base = plan(Wish(steps=3, sampler=Sampler.LCM, guidance_scale=1.0))[1].key
    long = " ".join(["word"] * 12)
    assert plan(Wish(prompt="x", steps=9, guidance_scale=9.0))[1].key == base
    assert plan(Wish(width=SIDE + 8))[1].key != base
    assert plan(Wish(prompt=long, long_prompt=LongPrompt.CHUNK))[1].key != base


@pytest.mark.parametrize("channels", [4, 9])
def test_another_default_dtype_changes_no_noise(channels: int) -> None:
    model = loaded_model(FakeNetwork(unet_channels=channels))
    modes: list[Mode] = [
        TextToImage(),
        ImageToImage(given(picture()), 0.6),
        Inpaint(given(picture()), given(mask(), "mask"), MaskPolarity.WHITE, strength=0.6),
    ]

    def begun(mode: Mode) -> PictureWork:
        [work] = works(model, Wish(mode=mode, steps=3, seed=4, sampler=Sampler.EULER_ANCESTRAL))
        for stage in model.plan(work):
            if stage.name == CANVAS:
                model.step(stage, [work])
        work.begin(torch.device("cpu"))
        work.advance(torch.zeros(work.latent_shape, dtype=torch.float32))
        return work

    for mode in modes:
        expected = begun(mode)
        with default_dtype(torch.bfloat16):
            work = begun(mode)
            seen = work.view()
        assert seen.dtype == torch.float32
        assert torch.equal(seen, expected.view())


def test_what_the_looks_need_is_in_memory_once_a_request_is_prepared() -> None:
    network = FakeNetwork(features=frozenset({Feature.DEEP}))
    model = loaded_model(network)
    [plain] = works(model, Wish(steps=3))
    [cached] = works(model, Wish(steps=3, cache_interval=2))
    assert network.prepared == [plain.needs, cached.needs] == [set(), {Feature.DEEP}]


def test_what_the_looks_need_may_not_fit_into_memory() -> None:
    network = FakeNetwork(no_room_for=frozenset({Feature.DEEP}))
    model = loaded_model(network)
    with pytest.raises(OutOfMemory):
        works(model, Wish(steps=3, cache_interval=2))
    assert len(works(model, Wish(steps=3))) == 1


class Adapted(PictureWork):
    """One that needs an input beyond the plain ones."""

    @property
    def needs(self) -> frozenset[Feature]:
        return frozenset({Feature.ADAPTERS})


def adapted(plain: PictureWork) -> Adapted:
    return Adapted(
        plain.order, plain.seed, plain.prompts, plain.table, plain.latent_shape, plain.default_area
    )


def test_rows_of_two_routes_share_no_step() -> None:
    model = loaded_model(FakeNetwork(features=frozenset(Feature)))
    [plain] = works(model, Wish(steps=3))
    stages, others = model.plan(plain), model.plan(adapted(plain))
    assert stages[1].key != others[1].key
    assert [stages[0].key, stages[2].key] == [others[0].key, others[2].key]


def test_an_input_that_the_network_does_not_take_is_told() -> None:
    model = loaded_model(FakeNetwork(features=frozenset({Feature.STYLE})))
    [plain] = works(model, Wish(steps=3))
    with pytest.raises(FailedPrecondition, match="does not take adapters"):
        model.plan(adapted(plain))


def test_a_given_picture_brings_a_stage() -> None:
    mode = ImageToImage(given(picture(SIDE * 2, SIDE)), 0.5)
    stages = plan(Wish(mode=mode, steps=8, guidance_scale=1.0))
    assert [(stage.name, stage.steps, stage.cost) for stage in stages] == [
        (ENCODE, 1, 1.0),
        (CANVAS, 1, 2.0),
        (DENOISE, 4, 2.0),
        (DECODE, 1, 2.0),
    ]


def test_rows_of_all_modes_share_a_key() -> None:
    mode = ImageToImage(given(picture(SIDE, SIDE)), 0.5)
    assert plan(Wish(mode=mode))[2].key == plan(Wish())[1].key


def test_pictures_of_one_request_share_their_canvas() -> None:
    model = loaded_model()
    mode = ImageToImage(given(picture()), 0.5)
    first, second = works(model, Wish(mode=mode, count=2))
    assert first.canvas is second.canvas
    assert first.canvas is not None
    assert first.canvas.picture is not None
    one, other = drive(model, [first, second])
    assert first.canvas.picture.image is None
    assert not np.array_equal(one[-1].pixels, other[-1].pixels)


def test_little_strength_changes_little() -> None:
    model, image = loaded_model(), picture()
    model_sees = model.loaded.network.decode(
        model.loaded.network.posterior(levels(image, SIDE, SIDE)[None]).mean
    )[0].astype(int)

    def departure(strength: float) -> float:
        wish = Wish(mode=ImageToImage(given(image), strength), steps=20, guidance_scale=1.0)
        made = drive(model, works(model, wish))[0][-1].pixels
        return float(np.abs(made.astype(int) - model_sees).mean())

    weak, medium, strong = departure(0.05), departure(0.4), departure(1.0)
    assert weak < medium < strong
    assert weak < 20


def some_mode(index: int) -> Mode:
    strength = 0.25 * (index % 4 + 1)
    match index % 3:
        case 0:
            return TextToImage()
        case 1:
            return ImageToImage(given(picture(seed=index)), strength)
        case _:
            image = given(picture(seed=index))
            return Inpaint(image, given(mask()), MaskPolarity.WHITE, strength)


WISHES = [
    Wish(
        prompt=f"picture {index}",
        mode=some_mode(index),
        negative_prompt="bad" if index % 2 else "",
        steps=4 + index % 5,
        guidance_scale=1.0 if index % 3 == 0 else 1.0 + index,
        guidance_rescale=0.7 if index % 4 == 1 else 0.0,
        sampler=sampler,
        seed=index,
    )
    for index, sampler in enumerate(Sampler)
]


def test_a_picture_alone_equals_itself_in_a_mixed_batch() -> None:
    model = loaded_model()
    alone = [drive(model, works(model, wish))[0][-1] for wish in WISHES]
    mixed = drive(model, [work for wish in WISHES for work in works(model, wish)])
    for one, (*_, same) in zip(alone, mixed, strict=True):
        assert np.abs(one.pixels.astype(int) - same.pixels.astype(int)).max() <= 2


def test_rows_of_one_tick_share_one_batch() -> None:
    network = FakeNetwork()
    model = loaded_model(network)
    wishes = (Wish(steps=2, guidance_scale=1.0), Wish(steps=3, guidance_scale=2.0))
    drive(model, [work for wish in wishes for work in works(model, wish)])
    assert network.batches == [3, 3, 2]


@pytest.mark.parametrize("tier", Reproducibility)
def test_a_step_ends_when_the_device_is_done(tier: Reproducibility) -> None:
    network = FakeNetwork()
    model = loaded_model(network)
    asked = works(model, Wish(steps=2, count=2, reproducibility=tier))
    before = network.finished
    for number, stage in enumerate(model.plan(asked[0]), start=1):
        model.step(stage, asked)
        assert network.finished == before + number


class LostNetwork(FakeNetwork):
    """Its device fails at a step, and ever after."""

    def finish(self) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.mark.parametrize("tier", Reproducibility)
def test_a_lost_device_is_no_pictures_fault(tier: Reproducibility) -> None:
    network = LostNetwork()
    model = loaded_model(network)
    network.fault = torch.AcceleratorError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceLost, match="launch failure"):
        drive(model, works(model, Wish(steps=2, reproducibility=tier)))


def test_fast_previews_of_a_step_are_each_rows_own() -> None:
    model = loaded_model()
    shown = PreviewWish(at_steps=(1,), method=PreviewMethod.FAST)
    first, hidden, second = (
        works(model, Wish(steps=3, seed=seed, preview=preview))[0]
        for seed, preview in enumerate((shown, PreviewWish(), shown))
    )
    encode, denoise, *_ = model.plan(first)
    model.step(encode, [first, hidden, second])
    one, none, other = model.step(denoise, [first, hidden, second])
    assert none is None
    assert isinstance(one, Picture)
    assert isinstance(other, Picture)
    alone = [
        drive(model, works(model, Wish(steps=3, seed=seed, preview=shown)))[0] for seed in (0, 2)
    ]
    for made, (expected, _) in zip((one, other), alone, strict=True):
        assert np.abs(made.pixels.astype(int) - expected.pixels.astype(int)).max() <= 2
    assert not np.array_equal(one.pixels, other.pixels)


def test_an_exact_row_is_looked_at_by_itself() -> None:
    network = FakeNetwork()
    model = loaded_model(network)
    wish = Wish(steps=1, guidance_scale=2.0, count=2)
    exact = replace(wish, guidance_scale=1.0, reproducibility=Reproducibility.EXACT)
    drive(model, [*works(model, exact), *works(model, wish)])
    assert sorted(network.batches) == [1, 1, 4]


def test_an_exact_row_that_fails_is_the_only_one() -> None:
    model = loaded_model()
    exact = Wish(steps=2, count=2, reproducibility=Reproducibility.EXACT)
    broken, sound = works(model, exact)
    encode, denoise, *_ = model.plan(sound)
    broken.prompts = replace(broken.prompts)  # without what encode will make of it
    model.step(encode, [sound])
    failed, fine = model.step(denoise, [broken, sound])
    assert isinstance(failed, RowFailed)
    assert fine is None
    assert (broken.evaluations, sound.evaluations) == (0, 1)


def test_pictures_of_one_request_are_encoded_once_and_differ() -> None:
    model = loaded_model()
    first, second = works(model, Wish(prompt="a star", count=2, seed=4))
    assert first.prompts is second.prompts
    one, other = drive(model, [first, second])
    assert not np.array_equal(one[-1].pixels, other[-1].pixels)


@pytest.mark.parametrize("method", PreviewMethod)
@pytest.mark.parametrize("sampler", [Sampler.DDIM, Sampler.HEUN, Sampler.PNDM])
def test_previews_tell_their_step(method: PreviewMethod, sampler: Sampler) -> None:
    model = loaded_model()
    preview = PreviewWish(at_steps=(2, 5), method=method)
    wish = Wish(steps=6, preview=preview, sampler=sampler)
    shown = drive(model, works(model, wish))[0]
    assert [(picture.step, picture.final) for picture in shown] == [
        (2, False),
        (5, False),
        (6, True),
    ]
    side = SIDE if method is PreviewMethod.DECODED else SIDE // 4
    assert shown[0].pixels.shape == (side, side, 3)


def test_the_last_decoded_preview_of_ddim_is_nearly_the_picture() -> None:
    model = loaded_model()
    preview = PreviewWish(at_steps=(8,), method=PreviewMethod.DECODED)
    last, final = drive(model, works(model, Wish(steps=8, preview=preview)))[0]
    assert np.abs(last.pixels.astype(int) - final.pixels.astype(int)).mean() < 4


def test_a_picture_of_no_numbers_fails_alone() -> None:
    network = FakeNetwork()
    model = loaded_model(network)
    sound, hollow = works(model, Wish(steps=2, count=2))
    encode, denoise, decode = model.plan(sound)
    for stage in (encode, denoise, denoise):
        model.step(stage, [sound, hollow])
    assert hollow.basis is not None
    hollow.basis = torch.full_like(hollow.basis, float("nan"))
    good, bad = model.step(decode, [sound, hollow])
    assert isinstance(good, Picture)
    assert isinstance(bad, RowFailed)


ALLOCATOR = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"


CUDA = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
OPENVINO = "Exception from src/inference/src/cpp/infer_request.cpp:223: std::bad_alloc"


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA"),
        RuntimeError(ALLOCATOR),
        RuntimeError(OPENVINO),
        RuntimeError(CUDA),
        RuntimeError(CUBLAS),
        MemoryError(),
    ],
)
def test_out_of_memory_is_told_in_the_engines_word(fault: Exception) -> None:
    network = FakeNetwork()
    model = loaded_model(network)
    network.fault = fault
    with pytest.raises(OutOfMemory):
        drive(model, works(model, Wish(steps=2)))


class Cramped(PictureWork):
    """Runs out of memory once, with its noise drawn, and once more at its first preview."""

    noise = 0
    previews = 0

    def _draw(self) -> torch.Tensor:
        drawn = PictureWork._draw(self)
        self.noise += 1
        if self.noise == 1:
            raise torch.OutOfMemoryError("no room to begin")
        return drawn

    def predicted_clean(self) -> torch.Tensor:
        self.previews += 1
        if self.previews == 1:
            raise torch.OutOfMemoryError("no room for a preview")
        return PictureWork.predicted_clean(self)


def test_a_step_without_room_can_be_made_again() -> None:
    preview = PreviewWish(at_steps=(2,))
    wish = Wish(steps=4, sampler=Sampler.EULER_ANCESTRAL, preview=preview, count=2)
    model = loaded_model()
    expected = drive(model, works(model, wish))
    order = resolve(wish, model.limits, draw_seed=int)
    first, other = model.works(order)
    cramped = Cramped(
        order, other.seed, other.prompts, other.table, other.latent_shape, other.default_area
    )
    encode, denoise = model.plan(first)[:2]
    model.step(encode, [first, cramped])
    with pytest.raises(OutOfMemory):
        model.step(denoise, [first, cramped])
    assert cramped.basis is None
    model.step(denoise, [first, cramped])
    with pytest.raises(OutOfMemory):
        model.step(denoise, [first, cramped])
    assert (first.evaluations, cramped.evaluations) == (1, 1)
    for _ in range(3):
        model.step(denoise, [first, cramped])
    made = model.step(model.plan(first)[-1], [first, cramped])
    for shown, answer in zip(expected, made, strict=True):
        assert isinstance(answer, Picture)
        assert np.array_equal(shown[-1].pixels, answer.pixels)
