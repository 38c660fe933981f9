"""How long each stage trains: the full schedule that ships, and a quick one that only runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VaePlan:
    """Steps of the auto-encoder; the first `crop_steps` of them on crops."""

    steps: int
    crop_steps: int
    crop_batch: int = 24
    batch: int = 12


@dataclass(frozen=True)
class JudgePlan:
    """Steps of the judge."""

    steps: int
    batch: int = 64


@dataclass(frozen=True)
class ClassifierPlan:
    """Steps of the demo classifier."""

    steps: int
    batch: int = 32


@dataclass(frozen=True)
class DiffusionPlan:
    """Steps of the generator, each of some pictures in every one of `processes` processes.

    The first `early_steps` take `early_batch` pictures: many small steps find the shapes sooner.
    Until `ground_from` the run attends to shapes, then to grounds; the learning rate of the first
    part is laid out for `shape_steps`, and the extra weight of the shape's pixels would be gone
    after `mask_steps`. The steps from `last_from` on are a short round of their own.
    """

    steps: int
    early_steps: int
    ground_from: int
    shape_steps: int
    mask_steps: int
    last_from: int
    early_batch: int = 16
    batch: int = 32
    processes: int = 2

    def batch_at(self, step: int) -> int:
        """Pictures of one process in this step."""
        return self.early_batch if step < self.early_steps else self.batch

    @property
    def samples(self) -> int:
        """Pictures of the whole run, repetitions counted."""
        return self.processes * sum(map(self.batch_at, range(self.steps)))


@dataclass(frozen=True)
class EvaluationPlan:
    """How much is generated to be measured; the best of `seeds` images is ranked."""

    prompts: int = 240
    seeds: int = 4


@dataclass(frozen=True)
class Plan:
    """The whole recipe."""

    train_pictures: int
    judge_pictures: int
    held_out_pictures: int
    vae: VaePlan
    judge: JudgePlan
    classifier: ClassifierPlan
    diffusion: DiffusionPlan
    evaluation: EvaluationPlan


FULL = Plan(
    train_pictures=60_000,
    judge_pictures=30_000,
    held_out_pictures=4_000,
    vae=VaePlan(steps=5_000, crop_steps=2_600),
    judge=JudgePlan(steps=2_500),
    classifier=ClassifierPlan(steps=14_000),
    diffusion=DiffusionPlan(
        steps=6_800,
        early_steps=3_000,
        ground_from=4_500,
        shape_steps=6_500,
        mask_steps=9_100,
        last_from=6_200,
    ),
    evaluation=EvaluationPlan(),
)
QUICK = Plan(
    train_pictures=600,
    judge_pictures=300,
    held_out_pictures=200,
    vae=VaePlan(steps=30, crop_steps=20),
    judge=JudgePlan(steps=30),
    classifier=ClassifierPlan(steps=30),
    diffusion=DiffusionPlan(
        steps=20,
        early_steps=10,
        ground_from=14,
        shape_steps=18,
        mask_steps=20,
        last_from=18,
        batch=8,
    ),
    evaluation=EvaluationPlan(prompts=4, seeds=2),
)
