"""The generator's training: text encoder and UNet together, on latents and captions.

Shapes are decided at middling noise, so that is where most steps train. At first the shape's own
pixels weigh more than the ground; once shapes are drawn, the ground weighs more and stripes, the
hardest of it, are shown more often. Processes share each step's gradient: two of one thread are
faster than one of two.
"""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from transformers import CLIPTokenizer

from models.recipe import contact_sheet, training
from models.recipe.examples import Examples
from models.recipe.generator import SCHEDULE, Generator, build
from models.recipe.plan import DiffusionPlan

SEED = 53


def train(work: Path, plan: DiffusionPlan) -> dict[str, float]:
    """Trains the generator and saves the pipeline in `work/diffusion/model`."""
    with tempfile.TemporaryDirectory() as meeting:
        arguments = (work, plan, Path(meeting) / "point")
        spawn(_train_shared, arguments, nprocs=plan.processes)  # type: ignore[no-untyped-call]
    state = torch.load(_checkpoint(work), weights_only=True)
    return {"seconds": state["seconds"], "steps": plan.steps, "samples": plan.samples}


def _checkpoint(work: Path) -> Path:
    return work / "diffusion" / "checkpoint.pt"


def _train_shared(rank: int, work: Path, plan: DiffusionPlan, meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=plan.processes
    )
    torch.manual_seed(SEED)
    generator = build(CLIPTokenizer.from_pretrained(work / "data" / "tokenizer"))
    generator.unet.to(memory_format=torch.channels_last)
    run = _run(generator, work, plan, leads=rank == 0)
    examples = Examples(work, generator.tokenizer)
    run.train(lambda step: _loss(generator, examples, rank, step, plan))
    if run.leads:
        _pipeline(generator, work).save_pretrained(work / "diffusion" / "model")
    dist.barrier()
    dist.destroy_process_group()


def _run(generator: Generator, work: Path, plan: DiffusionPlan, leads: bool) -> training.Run:
    # The fused attention of PyTorch is slower on a CPU for so few tokens, backwards above all.
    generator.unet.set_attn_processor(AttnProcessor())
    generator.text_encoder.set_attn_implementation("eager")
    unet, words = list(generator.unet.parameters()), list(generator.text_encoder.parameters())
    groups = [{"params": unet, "lr": 1e-3}, {"params": words, "lr": 5e-4}]
    average = training.Average([*unet, *words])

    def watch(done: int) -> None:
        if done % 1000 == 0:
            average.swap()
            _sheet(generator, work, done)
            average.swap()

    return training.Run(
        name="diffusion",
        checkpoint=_checkpoint(work),
        modules={"unet": generator.unet, "text_encoder": generator.text_encoder},
        optimizer=torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
        steps=plan.steps,
        rate=lambda step: _rate(step, plan),
        average=average,
        share=_average_gradients,
        leads=leads,
        save_every=500,
        watch=watch,
    )


def _rate(step: int, plan: DiffusionPlan) -> float:
    """Learning-rate factor: the second part holds what the first one came down to, then falls.

    The last round rises to half and falls again, which straightens the stripes.
    """
    if step >= plan.last_from:
        rest = plan.steps - plan.last_from
        return 0.5 * training.cosine(step - plan.last_from, rest, warm=50)
    if step < plan.ground_from:
        return training.cosine(step, plan.shape_steps, warm=150, hold=0.5)
    reached = training.cosine(plan.ground_from, plan.shape_steps, warm=150, hold=0.5)
    rest = plan.last_from - plan.ground_from
    return reached * training.cosine(step - plan.ground_from, rest, warm=1, hold=0.34)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    # One message for all of them: its fixed cost is most of the cost.
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    parts = torch.split(together, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _loss(
    generator: Generator, examples: Examples, rank: int, step: int, plan: DiffusionPlan
) -> Tensor:
    numbers, rng = training.randomness(SEED, rank, step)
    batch = plan.batch_at(step)
    to_grounds = step >= plan.ground_from
    latents, masks, ids = examples.draw(batch, numbers, rng, more_stripes=to_grounds)
    times = _times(batch, numbers)
    noise = torch.randn(latents.shape, generator=numbers)
    noisy, velocity = _diffuse(latents, noise, times)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = generator.text_encoder(ids).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        predicted = generator.unet(noisy, times, hidden).sample
    shape_weight = 3 * max(0.0, 1 - step / plan.mask_steps)
    weight = 2 - masks if to_grounds else 1 + shape_weight * masks
    loss: Tensor = ((predicted.float() - velocity) ** 2 * weight).mean() / weight.mean()
    return loss


def _times(count: int, numbers: torch.Generator) -> Tensor:
    """Timesteps, evenly spread: 35 % over all of them, 65 % over the middling 250 to 870."""
    u = (torch.arange(count) + torch.rand(count, generator=numbers)) / count
    times = torch.where(u < 0.35, u / 0.35 * 1000, 250 + (u - 0.35) / 0.65 * 620)
    return times.long().clamp(0, 999)


ALPHAS: Tensor = DDIMScheduler(**SCHEDULE).alphas_cumprod


def _diffuse(latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latents at these timesteps and the velocity to predict there."""
    kept = ALPHAS[times].view(-1, 1, 1, 1)
    signal, spread = kept.sqrt(), (1 - kept).sqrt()
    return signal * latents + spread * noise, signal * noise - spread * latents


def _pipeline(generator: Generator, work: Path) -> StableDiffusionPipeline:
    generator.unet.eval()
    generator.text_encoder.eval()
    return generator.pipeline(AutoencoderKL.from_pretrained(work / "vae" / "model"))


def _sheet(generator: Generator, work: Path, done: int) -> None:
    pipeline = _pipeline(generator, work)
    pipeline.save_pretrained(work / "diffusion" / "interim")
    contact_sheet.save(pipeline, work / "diffusion" / f"sheet-{done:06d}.png")
    generator.unet.train()
    generator.text_encoder.train()
