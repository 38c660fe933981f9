"""The judges of a request, called together: checked, resolved, and seated as one panel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from easel.common.v1 import common_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.config import RankerSettings
from ranker.onnx import Runtime
from ranker.pictures import request
from ranker.pictures.judges import reward, similarity, wire
from ranker.pictures.judges.clip import ClipModel, open_clip
from ranker.pictures.judges.label import LabelJudge, log_odds
from ranker.pictures.judges.panel import PairwiseSeat, Panel, Seat
from ranker.pictures.judges.reward import Plugins
from ranker.pictures.judges.spec import (
    JudgeSpec,
    LabelSpec,
    RewardSpec,
    SimilaritySpec,
    Strength,
    TextImageSpec,
    check_specs,
)
from ranker.pictures.judges.text_image import TextImageJudge
from ranker.pictures.judging import Score, Sight
from ranker.pictures.upstream import ClassifierClient, ClassifierModel, PictureSight
from services.core.errors import EaselError, FailedPrecondition, InvalidInput

# What a weight of 1 counts in, where a judge is not alone and no other spread is given.
LABEL_SPREAD: Final = 1.0
SIMILARITY_SPREAD: Final = 0.1
TEXT_IMAGE_SPREAD: Final = 0.01
PAIRWISE_SPREAD: Final = 1.0


@dataclass(frozen=True, slots=True)
class Jury:
    """The judges of one request. ``specs``: as resolved. ``ref``: the classifier's model that they
    ask first; None where they ask none."""

    panel: Panel
    specs: tuple[JudgeSpec, ...]
    ref: common_pb2.ModelRef | None
    see: Callable[[common_pb2.Image, str], Sight]

    @property
    def pairwise(self) -> bool:
        return self.panel.pairwise

    async def score(self, image: bytes) -> Score:
        return await self.score_image(common_pb2.Image(encoded=image), "image")

    async def compare(
        self, images: Sequence[bytes], room: asyncio.Semaphore
    ) -> list[Score | EaselError]:
        sights = [self.see(common_pb2.Image(encoded=image), "image") for image in images]
        return await self.panel.compare(sights, room)

    async def score_image(self, image: common_pb2.Image, field: str) -> Score:
        return await self.panel.score(self.see(image, field))

    def messages(self) -> list[ranker_pb2.Judge]:
        return [wire.spec_to_pb(spec) for spec in self.specs]


class JudgesService:
    """Calls juries. ``load`` opens the networks that the ranker runs itself."""

    def __init__(
        self, settings: RankerSettings, classifier: ClassifierClient, plugins: Plugins | None = None
    ) -> None:
        self._settings = settings
        self._classifier = classifier
        self._plugins = plugins or Plugins()
        self._clips: dict[str, ClipModel] = {}
        self._threads = ThreadPoolExecutor(settings.judge_threads, "judge")

    def load(self) -> None:
        """Blocking. Raises FailedPrecondition."""
        for directory in self._settings.text_image_models:
            self._clips[directory.name] = open_clip(directory, Runtime())

    def close(self) -> None:
        """What runs ends by itself; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def specs(self, judges: Sequence[ranker_pb2.Judge]) -> tuple[JudgeSpec, ...]:
        """As asked for; the label in the prompt where there is none. Raises InvalidInput."""
        request.check_count(len(judges), self._settings.max_judges, field="judges")
        specs = tuple(wire.spec_from_pb(judge, position) for position, judge in enumerate(judges))
        check_specs(specs, max_references=self._settings.max_references)
        return specs or (JudgeSpec(),)

    async def call(self, specs: Sequence[JudgeSpec], prompt: str, pictures: int) -> Jury:
        """For as many as ``pictures`` at a time. Raises EaselError naming the field at fault."""
        asked = [
            spec.kind.model for spec in specs if isinstance(spec.kind, LabelSpec | SimilaritySpec)
        ]
        names = tuple(dict.fromkeys(asked))
        found = await asyncio.gather(*(self._classifier.model(name) for name in names))
        models = dict(zip(names, found, strict=True))
        labels = {name: len(model.labels.names) for name, model in models.items()}
        see = partial(_see, self._classifier, labels, self._run)
        seating = _Seating(self, models, prompt, see, alone=len(specs) == 1)
        seated = [await seating.seat(spec, position) for position, spec in enumerate(specs)]
        if any(isinstance(seat, PairwiseSeat) for _, seat in seated):
            self._check_pairs(pictures)
        tops = [spec.kind.model for spec in specs if isinstance(spec.kind, LabelSpec)]
        panel = Panel([seat for _, seat in seated], tops[0] if tops else None)
        resolved = tuple(spec for spec, _ in seated)
        return Jury(panel, resolved, models[names[0]].ref if names else None, see)

    async def _run(self, work: Callable[..., Any], *given: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(work, *given))

    def _check_pairs(self, pictures: int) -> None:
        limit = self._settings.max_pairwise
        if pictures > limit:
            raise InvalidInput(
                "judges", "A pairwise judge compares every two of the pictures.", limit, pictures
            )

    def _clip(self, name: str, at: str) -> ClipModel:
        if not self._clips:
            raise FailedPrecondition(
                "No text-image model is configured: EASEL_RANKER_TEXT_IMAGE_MODELS names "
                "directories of them."
            )
        if name and name not in self._clips:
            raise InvalidInput(
                f"{at}.text_image.model",
                "There is no such text-image model.",
                ", ".join(self._clips),
                name[:100],
            )
        return self._clips[name or next(iter(self._clips))]


class _Seating:
    """The judges of one request, resolved one after the other."""

    def __init__(
        self,
        service: JudgesService,
        models: Mapping[str, ClassifierModel],
        prompt: str,
        see: Callable[[common_pb2.Image, str], Sight],
        *,
        alone: bool,
    ) -> None:
        self._service = service
        self._models = models
        self._prompt = prompt
        self._see = see
        self._alone = alone

    async def seat(self, spec: JudgeSpec, position: int) -> tuple[JudgeSpec, Seat | PairwiseSeat]:
        at = f"judges[{position}]"
        match spec.kind:
            case LabelSpec():
                return self._label(spec, spec.kind, at)
            case SimilaritySpec():
                return await self._similarity(spec, spec.kind, at)
            case TextImageSpec():
                return await self._text_image(spec, spec.kind, at)
            case RewardSpec():
                return await self._reward(spec, spec.kind, at)

    def _label(self, spec: JudgeSpec, kind: LabelSpec, at: str) -> tuple[JudgeSpec, Seat]:
        labels = self._models[kind.model].labels
        index = labels.find(kind.label, self._prompt, field=f"{at}.label.label")
        judge = LabelJudge(index, kind.model, labels.multi_label)
        resolved = self._resolved(spec, replace(kind, label=labels.names[index]), LABEL_SPREAD)
        return resolved, Seat(judge, *_measure(resolved), log_odds)

    async def _similarity(
        self, spec: JudgeSpec, kind: SimilaritySpec, at: str
    ) -> tuple[JudgeSpec, Seat]:
        sights = []
        for number, image in enumerate(kind.references):
            assert isinstance(image, common_pb2.Image)
            sights.append(self._see(image, f"{at}.similarity.references[{number}]"))
        try:
            judge = await similarity.look_at(sights, kind.model, kind.layer)
        except InvalidInput as error:
            field = f"{at}.similarity"
            if error.field.startswith("image"):
                field = f"{field}.references"
            elif error.field.startswith("layers"):
                field = f"{field}.layer"
            raise InvalidInput(
                field, error.message, error.limit, error.given, reason=error.reason
            ) from error
        resolved = self._resolved(spec, kind, SIMILARITY_SPREAD)
        return resolved, Seat(judge, *_measure(resolved))

    async def _text_image(
        self, spec: JudgeSpec, kind: TextImageSpec, at: str
    ) -> tuple[JudgeSpec, Seat]:
        model = self._service._clip(kind.model, at)
        text = self._text(kind.text, f"{at}.text_image.text")
        run = self._service._run
        wanted = await run(partial(model.read, text, field=f"{at}.text_image.text"))
        named = replace(kind, text=text, model=model.name)
        resolved = self._resolved(spec, named, TEXT_IMAGE_SPREAD)
        return resolved, Seat(TextImageJudge(model, wanted, run), *_measure(resolved))

    async def _reward(
        self, spec: JudgeSpec, kind: RewardSpec, at: str
    ) -> tuple[JudgeSpec, Seat | PairwiseSeat]:
        run = self._service._run
        load = partial(self._service._plugins.load, kind.name, at=f"{at}.reward.name")
        plugin = await run(load)
        text = kind.text or self._prompt
        if not plugin.pairwise:
            if kind.strength is not None:
                raise InvalidInput(
                    f"{at}.reward.ranking", f"The judge {kind.name!r} scores pictures one by one."
                )
            resolved = self._resolved(spec, replace(kind, text=text), plugin.spread)
            judge = reward.RewardJudge(plugin, text, run)
            return resolved, Seat(judge, *_measure(resolved))
        strength = kind.strength or Strength.BRADLEY_TERRY
        named = replace(kind, text=text, strength=strength)
        resolved = self._resolved(spec, named, PAIRWISE_SPREAD)
        comparison = reward.RewardComparison(plugin, text, run)
        return resolved, PairwiseSeat(comparison, strength.of, *_measure(resolved))

    def _text(self, own: str, at: str) -> str:
        text = own or self._prompt
        if not text.strip():
            raise InvalidInput(at, "There is no text to judge by: neither here nor a prompt.")
        return text

    def _resolved(
        self,
        spec: JudgeSpec,
        kind: LabelSpec | SimilaritySpec | TextImageSpec | RewardSpec,
        own_spread: float,
    ) -> JudgeSpec:
        return JudgeSpec(kind, spec.weight, spec.divisor(own_spread, alone=self._alone))


def _measure(spec: JudgeSpec) -> tuple[float, float]:
    assert spec.spread is not None, "it is resolved"
    return spec.weight, spec.spread


def _see(
    client: ClassifierClient, labels: Mapping[str, int], run: Any, image: common_pb2.Image, at: str
) -> Sight:
    return PictureSight(image, client, labels, run, at)
