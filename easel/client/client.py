"""`Client`: the gateway's services as typed Python calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar, Unpack

import grpc

from easel.battles import Battle, parts
from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.client import requests
from easel.client.answers import (
    Classification,
    Collection,
    Embedding,
    Embeddings,
    Explanation,
    ImageMatch,
    Indexed,
    Label,
    RankedImage,
    Verification,
)
from easel.client.calibration import CalibrationEvent, calibration_event
from easel.client.channel import open_channel
from easel.client.errors import EaselClientError
from easel.client.events import (
    BestOfEvent,
    Blocked,
    Failed,
    GeneratedImage,
    GenerateEvent,
    best_of_event,
    generate_event,
)
from easel.client.judge import Judge
from easel.client.picture import Picture, to_message
from easel.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from easel.generator.v1 import generator_pb2, generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from easel.ranker.v1 import ranker_pb2, ranker_pb2_grpc

DEFAULT_TARGET = "127.0.0.1:50050"

# As many as one message of the arena takes.
_PAGE = 1000
_IMPORTED = 10_000

M = TypeVar("M")
E = TypeVar("E")


class Client:
    """A connection to a gateway; usable from several threads, and as a context manager.

    ``timeout`` (seconds) is the deadline of every call that sets none of its own; None for no
    deadline. ``tenant`` and ``priority`` (-10 to 10, larger is more urgent) go with every call.
    The generated stubs are there as ``classifier``, ``generator``, ``ranker``, ``models`` and
    ``gateway``, for what the methods do not cover.

    Methods raise ``EaselClientError`` when the call fails, ``OSError`` for a picture file that
    cannot be read and ``ValueError`` for an option's name that does not exist. A call with an
    iterator of events starts when the first is asked for; closing the iterator cancels it.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        tenant: str | None = None,
        priority: int = 0,
    ) -> None:
        channel, self._close = open_channel(
            target, api_key=api_key, timeout=timeout, tenant=tenant, priority=priority
        )
        self.target = target
        self.classifier = classifier_pb2_grpc.ClassifierServiceStub(channel)
        self.generator = generator_pb2_grpc.GeneratorServiceStub(channel)
        self.ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        self.models = model_pb2_grpc.ModelServiceStub(channel)
        self.gateway = gateway_pb2_grpc.GatewayServiceStub(channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way end as cancelled."""
        self._close()

    def classify(
        self,
        image: Picture,
        *,
        top_k: int | None = None,
        threshold: float = 0.0,
        labels: Sequence[str] = (),
        logits: bool = False,
        fit: str = "",
        model: str = "",
    ) -> list[Label]:
        """Return the picture's labels, best first: 5 of them unless ``top_k`` says otherwise."""
        request = requests.classify_request(
            to_message(image),
            top_k=top_k,
            threshold=threshold,
            labels=labels,
            logits=logits,
            fit=fit,
            model=model,
        )
        with _translated():
            answer = self.classifier.Classify(request)
        return [Label.from_pb(label) for label in answer.labels]

    def classify_many(
        self,
        images: Iterable[Picture | tuple[str, Picture]],
        *,
        top_k: int | None = None,
        threshold: float = 0.0,
        labels: Sequence[str] = (),
        logits: bool = False,
        fit: str = "",
        model: str = "",
        model_version: str = "",
    ) -> Iterator[Classification]:
        """Classify any number of pictures on one stream; answers come as they finish.

        ``images`` is read as the server takes them, so it may be endless. Give (id, picture)
        pairs, or pictures alone, which then are named "0", "1", ... A picture that fails is an
        answer with ``error``, the rest goes on.
        """
        outgoing: Iterator[classifier_pb2.ClassifyRequest] = (
            requests.classify_request(
                to_message(image),
                id=name,
                top_k=top_k,
                threshold=threshold,
                labels=labels,
                logits=logits,
                fit=fit,
                model=model,
                model_version=model_version,
            )
            for name, image in _identified(images)
        )
        sent = _Outgoing(outgoing)
        return _events(lambda: self.classifier.ClassifyStream(sent), Classification.from_pb, sent)

    def embed(
        self,
        image: Picture,
        *,
        layers: Sequence[int] = (),
        pooling: str = "",
        normalize: bool = False,
        dtype: str = "",
        final_norm: bool | None = None,
        fit: str = "",
        model: str = "",
    ) -> list[Embedding]:
        """Return one embedding a layer: of the last layer and the class token by default.

        ``pooling`` is "cls", "mean" or "patch"; ``dtype`` "float32" or "float16".
        """
        request = requests.embed_request(
            to_message(image),
            layers=layers,
            pooling=pooling,
            normalize=normalize,
            dtype=dtype,
            final_norm=final_norm,
            fit=fit,
            model=model,
        )
        with _translated():
            answer = self.classifier.Embed(request)
        return [Embedding.from_pb(embedding) for embedding in answer.embeddings]

    def explain(
        self,
        image: Picture,
        *,
        method: str = "",
        label: str = "",
        overlay: bool = False,
        format: str = "",
        quality: int | None = None,
        fit: str = "",
        model: str = "",
        model_version: str = "",
    ) -> Explanation:
        """Return which patches of the picture spoke for its best label, or for the ``label`` named.

        ``method`` is "rollout" or "gradient". With ``overlay`` the answer has the heat map over
        the picture, in the ``format`` "png", "jpeg" or "webp".
        """
        request = requests.explain_request(
            to_message(image),
            method=method,
            label=label,
            overlay=overlay,
            format=format,
            quality=quality,
            fit=fit,
            model=model,
            model_version=model_version,
        )
        with _translated():
            answer = self.classifier.Explain(request)
        return Explanation.from_pb(answer)

    def embed_many(
        self,
        images: Iterable[Picture | tuple[str, Picture]],
        *,
        layers: Sequence[int] = (),
        pooling: str = "",
        normalize: bool = False,
        dtype: str = "",
        final_norm: bool | None = None,
        fit: str = "",
        model: str = "",
        model_version: str = "",
    ) -> Iterator[Embeddings]:
        """Embed any number of pictures on one stream; answers come as they finish.

        ``images`` are given as to `classify_many`, the rest as to `embed`. A picture that fails
        is an answer with ``error``, the rest goes on.
        """
        outgoing: Iterator[classifier_pb2.EmbedRequest] = (
            requests.embed_request(
                to_message(image),
                id=name,
                layers=layers,
                pooling=pooling,
                normalize=normalize,
                dtype=dtype,
                final_norm=final_norm,
                fit=fit,
                model=model,
                model_version=model_version,
            )
            for name, image in _identified(images)
        )
        sent = _Outgoing(outgoing)
        return _events(lambda: self.classifier.EmbedStream(sent), Embeddings.from_pb, sent)

    def generate(
        self, prompt: str, **options: Unpack[requests.GenerateOptions]
    ) -> Iterator[GenerateEvent]:
        """Make pictures; yields their events as they happen."""
        request = requests.generate_request(prompt, **options)
        return _events(lambda: self.generator.Generate(request), generate_event)

    def generate_images(
        self, prompt: str, **options: Unpack[requests.GenerateOptions]
    ) -> list[GeneratedImage]:
        """Make pictures and wait for them; by index. Raises for the first that fails."""
        made: list[GeneratedImage] = []
        for event in self.generate(prompt, **options):
            if isinstance(event, Failed):
                raise EaselClientError.from_item(event.error)
            if isinstance(event, Blocked):
                code = grpc.StatusCode.FAILED_PRECONDITION
                raise EaselClientError(code, event.reason, reason="BLOCKED")
            if isinstance(event, GeneratedImage):
                made.append(event)
        return sorted(made, key=lambda image: image.index)

    def verify(
        self,
        picture: Picture | None = None,
        *,
        provenance: generator_pb2.Provenance | None = None,
        given: Iterable[Picture] = (),
        allow_other_versions: bool = False,
    ) -> Verification:
        """Have a picture made again from its record, and compared.

        Without ``provenance`` the record that the picture carries counts; without a picture its
        recorded digest. ``given`` are the pictures that it was made from.
        """
        request = requests.verify_request(
            None if picture is None else to_message(picture),
            provenance=provenance,
            given=[to_message(each) for each in given],
            allow_other_versions=allow_other_versions,
        )
        with _translated():
            answer = self.generator.Verify(request)
        return Verification.from_pb(answer)

    def best_of(
        self,
        prompt: str,
        *,
        candidates: int = 0,
        label: str = "",
        judges: Sequence[Judge] = (),
        rounds: Sequence[requests.Round] | None = None,
        return_images: int = 0,
        previews: bool = False,
        **options: Unpack[requests.GenerateOptions],
    ) -> Iterator[BestOfEvent]:
        """Make candidates, judged as they form; yields their events and, last, the `Ranking`.

        ``label`` and ``judges`` are what they are judged by (a label in the prompt when neither is
        given). ``rounds`` is the pruning: (share of the steps, candidates kept), or with a third,
        how far behind the best they may be; empty for none, None for the server's own.
        """
        request = requests.best_of_request(
            requests.generate_request(prompt, **options),
            candidates=candidates,
            label=label,
            judges=judges,
            rounds=rounds,
            return_images=return_images,
            previews=previews,
        )
        return _events(lambda: self.ranker.BestOf(request), best_of_event)

    def rank_images(
        self,
        images: Iterable[Picture] | Mapping[str, Picture],
        *,
        prompt: str = "",
        label: str = "",
        judges: Sequence[Judge] = (),
    ) -> list[RankedImage]:
        """Return the pictures best first, by the label and the judges given, or by the label found
        in the prompt.

        Give a mapping to name the pictures; without one they are named "0", "1", ...
        """
        pairs = images.items() if isinstance(images, Mapping) else _identified(images)
        named = {name: to_message(image) for name, image in pairs}
        request = requests.rank_request(named, prompt=prompt, label=label, judges=judges)
        with _translated():
            answer = self.ranker.RankImages(request)
        return [RankedImage.from_pb(image) for image in answer.images]

    def index_images(
        self,
        images: Iterable[Picture | tuple[str, Picture]],
        *,
        collection: str,
        attributes: Mapping[str, str] | Callable[[str], Mapping[str, str]] | None = None,
        skip_existing: bool = False,
    ) -> Iterator[Indexed]:
        """Have any number of pictures found by `search_images`; answers come as they finish.

        ``images`` are given as to `classify_many`, and replace those of the same ids, unless
        ``skip_existing`` leaves them. ``attributes`` are those of every picture, or a function
        from a picture's id to its own. A collection that is not there is made.
        """
        own = attributes if callable(attributes) else (lambda _: attributes or {})
        outgoing: Iterator[ranker_pb2.IndexImagesRequest] = (
            requests.index_request(
                collection,
                name,
                to_message(image),
                attributes=own(name),
                skip_existing=skip_existing,
            )
            for name, image in _identified(images)
        )
        sent = _Outgoing(outgoing)
        return _events(lambda: self.ranker.IndexImages(sent), Indexed.from_pb, sent)

    def search_images(
        self,
        collection: str,
        *,
        image: Picture | None = None,
        embedding: Sequence[float] | None = None,
        id: str = "",
        digest: str = "",
        top_k: int = 0,
        labels: Sequence[str] = (),
        attributes: Mapping[str, str] | None = None,
    ) -> list[ImageMatch]:
        """Return a collection's pictures that are most like ``image``, ``embedding`` or the picture
        ``id`` of the collection: 10 of them unless ``top_k`` says otherwise.

        Only those with at least one of ``labels`` and all ``attributes``. Without anything to be
        like, those that most probably show one of the ``labels``. ``digest`` of the model that made
        the embedding is compared with the collection's.
        """
        request = requests.search_request(
            collection,
            image=None if image is None else to_message(image),
            embedding=embedding,
            id=id,
            digest=digest,
            top_k=top_k,
            labels=labels,
            attributes=attributes,
        )
        with _translated():
            answer = self.ranker.SearchImages(request)
        is_like = request.WhichOneof("query") is not None
        return [
            ImageMatch.from_pb(match, similarity=match.similarity if is_like else None)
            for match in answer.matches
        ]

    def list_images(
        self,
        collection: str,
        *,
        labels: Sequence[str] = (),
        attributes: Mapping[str, str] | None = None,
        page_size: int = 1000,
    ) -> Iterator[ImageMatch]:
        """Yield a collection's pictures by id, page by page as they are asked for."""
        token = ""
        while True:
            request = ranker_pb2.ListImagesRequest(
                collection=collection,
                page_size=page_size,
                page_token=token,
                labels=labels,
                attributes=attributes or {},
            )
            with _translated():
                page = self.ranker.ListImages(request)
            yield from (ImageMatch.from_pb(image, similarity=None) for image in page.images)
            token = page.next_page_token
            if not token:
                return

    def delete_images(self, collection: str, ids: Sequence[str]) -> int:
        """Delete pictures from a collection; returns how many were there."""
        request = ranker_pb2.DeleteImagesRequest(collection=collection, ids=ids)
        with _translated():
            return self.ranker.DeleteImages(request).deleted

    def create_collection(
        self,
        name: str,
        *,
        model: str = "",
        model_version: str = "",
        layer: int | None = None,
        pooling: str = "",
        fit: str = "",
    ) -> Collection:
        """Make a collection of other vectors than the default ones: those of the classifier's own
        model, its last layer and class token. One that is there with the same ones is returned.

        ``pooling`` is "cls" or "mean", ``fit`` "model", "pad" or "center-crop".
        """
        request = requests.collection_request(
            name, model=model, model_version=model_version, layer=layer, pooling=pooling, fit=fit
        )
        with _translated():
            return Collection.from_pb(self.ranker.CreateCollection(request).collection)

    def list_collections(self) -> list[Collection]:
        """Return the collections of pictures, by name."""
        with _translated():
            answer = self.ranker.ListCollections(ranker_pb2.ListCollectionsRequest())
        return [Collection.from_pb(collection) for collection in answer.collections]

    def delete_collection(self, name: str) -> int:
        """Delete a collection with its pictures; returns how many those were."""
        with _translated():
            request = ranker_pb2.DeleteCollectionRequest(name=name)
            return self.ranker.DeleteCollection(request).images

    def calibrate_pruning(
        self,
        prompts: Sequence[str],
        *,
        candidates: int = 0,
        label: str = "",
        judges: Sequence[Judge] = (),
        at: Sequence[float] = (),
        max_work: float = 0.0,
        **options: Unpack[requests.GenerateOptions],
    ) -> Iterator[CalibrationEvent]:
        """Run best-ofs without pruning, and find what pruning would save and lose; yields their
        progress and, last, the `PruningCalibration`.

        ``at``: shares of the steps at which candidates are scored. ``max_work``: the mean share of
        the steps that the schedule to be chosen may take.
        """
        request = requests.calibration_request(
            requests.generate_request("", **options),
            prompts,
            candidates=candidates,
            label=label,
            judges=judges,
            at=at,
            max_work=max_work,
        )
        return _events(lambda: self.ranker.CalibratePruning(request), calibration_event)

    def scores(self, model: str) -> Iterator[ranker_pb2.LoggedScore]:
        """Every score of a model that was told, the latest first, each computed again."""
        request = ranker_pb2.ListScoresRequest(model=model)
        while True:
            with _translated():
                answer = self.ranker.ListScores(request)
            yield from answer.scores
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def compare(self, a: str, b: str, *, intent: str = "") -> ranker_pb2.CompareResponse:
        """Compare two models of the catalogue, each by its id, name or an alias; on one ``intent``
        or, when it is empty, on all that both serve."""
        request = ranker_pb2.CompareRequest(a=a, b=b, intent=intent)
        with _translated():
            return self.ranker.Compare(request)

    def resolve(self, query: str, *, limit: int = 0, type: str = "") -> ranker_pb2.ResolveResponse:
        """Search the match graph: models that can do what ``query`` says, best first, and why.

        ``limit`` 0 is 10 models; ``type`` keeps those of one type.
        """
        request = ranker_pb2.ResolveRequest(query=query, limit=limit, type=type)
        with _translated():
            return self.ranker.Resolve(request)

    def record_outcome(
        self, token: str, position: int, outcome: str, *, comment: str = ""
    ) -> ranker_pb2.RecordOutcomeResponse:
        """Record what became of the match at ``position`` of the answer that ``token`` came with:
        "chosen", "succeeded" or "failed". Telling the same again changes nothing.
        """
        request = requests.outcome_request(token, position, outcome, comment)
        with _translated():
            return self.ranker.RecordOutcome(request)

    def status(self, services: Sequence[str] = ()) -> gateway_pb2.StatusResponse:
        """Return the state of the services behind the gateway: of all, or of those named."""
        with _translated():
            return self.gateway.Status(gateway_pb2.StatusRequest(services=services))

    def get_model(
        self, name: str = "", version: str = "", *, service: str = "classifier"
    ) -> model_pb2.ModelInfo:
        """Return a model with its effective configuration; the default one when it is not named."""
        request = model_pb2.GetModelRequest(name=name, version=version)
        with _translated():
            return self.models.GetModel(request, metadata=_to(service)).model

    def list_models(self) -> list[model_pb2.ModelInfo]:
        """Return every model of every service that is up, with its effective configuration."""
        return [model for service in self.status().services for model in service.models]

    def load_model(
        self,
        reference: str,
        *,
        name: str = "",
        version: str = "",
        backend: str = "",
        device: str = "",
        precision: str = "",
        options: Mapping[str, str] | None = None,
        make_default: bool = False,
        service: str = "classifier",
    ) -> model_pb2.ModelInfo:
        """Load a model beside those that are served; returns when it is ready.

        ``reference`` is a name that the server knows, a directory below its own for models, or
        org/name[@revision] of the hub. ``make_default`` gives it the name's traffic once it is
        warm. The load goes on should this call end before it.
        """
        request = model_pb2.LoadModelRequest(
            reference=reference,
            name=name,
            version=version,
            backend=backend,
            device=device,
            precision=precision,
            options=options or {},
            make_default=make_default,
        )
        with _translated():
            return self.models.LoadModel(request, metadata=_to(service)).model

    def unload_model(
        self, name: str, version: str = "", *, service: str = "classifier"
    ) -> model_pb2.ModelInfo:
        """Unload a model once what it was asked has finished; returns when its memory is free."""
        request = model_pb2.UnloadModelRequest(name=name, version=version)
        with _translated():
            return self.models.UnloadModel(request, metadata=_to(service)).model

    def set_traffic(
        self, name: str, shares: Mapping[str, float], *, service: str = "classifier"
    ) -> list[model_pb2.ModelInfo]:
        """Split what names no version between versions, by shares that add up to 1; returns all
        versions of the name.
        """
        request = model_pb2.SetTrafficRequest(name=name, shares=shares)
        with _translated():
            return list(self.models.SetTraffic(request, metadata=_to(service)).models)

    def watch_models(
        self, *, service: str = "classifier", timeout: float | None = None
    ) -> Iterator[model_pb2.ModelInfo]:
        """Yield every model as it is, then each change, until ``timeout`` (seconds) or for ever."""
        request = model_pb2.WatchModelsRequest()
        return _events(
            lambda: self.models.WatchModels(request, metadata=_to(service), timeout=timeout),
            lambda answer: answer.model,
        )

    def catalogue_models(
        self, *, type: str = "", page_size: int = 0
    ) -> Iterator[ranker_pb2.CatalogueModel]:
        """Yield the models of the catalogue by their ids, of one type or of all; asks for a page
        when it is needed."""
        request = ranker_pb2.ListCatalogueModelsRequest(type=type, page_size=page_size)
        while True:
            with _translated():
                page = self.ranker.ListCatalogueModels(request)
            yield from page.models
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def catalogue_model(self, name: str) -> ranker_pb2.CatalogueModel:
        """Return the model with this id, name or alias, with what is served of it now."""
        with _translated():
            request = ranker_pb2.GetCatalogueModelRequest(model=name)
            return self.ranker.GetCatalogueModel(request).model

    def put_catalogue_model(self, model: ranker_pb2.CatalogueModel) -> ranker_pb2.CatalogueModel:
        """Add a model to the catalogue, or put it in the place of the one with its id."""
        with _translated():
            request = ranker_pb2.PutCatalogueModelRequest(model=model)
            return self.ranker.PutCatalogueModel(request).model

    def delete_catalogue_model(self, name: str) -> None:
        """Take the record with this id, name or alias out of the catalogue."""
        with _translated():
            request = ranker_pb2.DeleteCatalogueModelRequest(model=name)
            self.ranker.DeleteCatalogueModel(request)

    def export_catalogue(self) -> ranker_pb2.ExportCatalogueResponse:
        """Return the catalogue as a YAML document, and its revision."""
        with _translated():
            return self.ranker.ExportCatalogue(ranker_pb2.ExportCatalogueRequest())

    def import_catalogue(
        self, yaml: str, *, dry_run: bool = False, keep_others: bool = False
    ) -> ranker_pb2.ImportCatalogueResponse:
        """Make the catalogue what a document says, all of it or nothing; returns what changed.

        ``dry_run`` only says what would. ``keep_others`` leaves models that are not in it.
        """
        request = ranker_pb2.ImportCatalogueRequest(
            yaml=yaml, dry_run=dry_run, keep_others=keep_others
        )
        with _translated():
            return self.ranker.ImportCatalogue(request)

    # ---- the arena ----

    def next_pair(self, intent: str = "", *, prompt: str = "") -> ranker_pb2.NextPairResponse:
        """Return two pictures to choose from, and the token to vote with; on the arena's own
        prompts unless one is given."""
        request = ranker_pb2.NextPairRequest(intent=intent, prompt=prompt)
        with _translated():
            return self.ranker.NextPair(request)

    def vote(self, token: str, choice: str, *, judge: str = "") -> ranker_pb2.RecordVoteResponse:
        """Vote "left", "right" or "tie" on a pair; returns who made which."""
        request = requests.record_vote_request(token, choice, judge)
        with _translated():
            return self.ranker.RecordVote(request)

    def leaderboard(self, intent: str = "") -> ranker_pb2.ListLeaderboardResponse:
        """Return the whole leaderboard, best first, those without a rank last."""
        with _translated():
            board = self.ranker.ListLeaderboard(
                ranker_pb2.ListLeaderboardRequest(intent=intent, page_size=_PAGE)
            )
            while board.next_page_token:
                request = ranker_pb2.ListLeaderboardRequest(
                    intent=intent, page_size=_PAGE, page_token=board.next_page_token
                )
                page = self.ranker.ListLeaderboard(request)
                board.rows.extend(page.rows)
                board.next_page_token = page.next_page_token
        return board

    def arena_judges(self, intent: str = "") -> list[ranker_pb2.JudgeRow]:
        """Return the judges that voted, those with the most votes first."""
        rows: list[ranker_pb2.JudgeRow] = []
        token = ""
        with _translated():
            while True:
                request = ranker_pb2.ListJudgesRequest(
                    intent=intent, page_size=_PAGE, page_token=token
                )
                page = self.ranker.ListJudges(request)
                rows += page.judges
                token = page.next_page_token
                if not token:
                    return rows

    def judge_pairs(
        self,
        pairs: int,
        intent: str = "",
        *,
        judges: Sequence[Judge] = (),
        label: str = "",
        name: str = "",
        tie_margin: float = 0.0,
        prompt: str = "",
    ) -> Iterator[ranker_pb2.JudgePairsResponse]:
        """Have the ranker's judges vote on so many pairs; yields each vote as it is recorded.

        ``judges`` and ``label`` are as those of `rank_images`; scores within ``tie_margin`` of
        each other are a tie.
        """
        request = requests.judge_pairs_request(
            intent=intent,
            pairs=pairs,
            judges=judges,
            label=label,
            name=name,
            tie_margin=tie_margin,
            prompt=prompt,
        )
        return _events(lambda: self.ranker.JudgePairs(request), lambda answer: answer)

    def import_votes(
        self, battles: Iterable[Battle], intent: str = ""
    ) -> ranker_pb2.ImportVotesResponse:
        """Add votes that were cast elsewhere; those whose id is there already are left out."""
        sent = _Outgoing(
            requests.import_votes_request(intent, part) for part in parts(battles, _IMPORTED)
        )
        try:
            with _translated():
                return self.ranker.ImportVotes(sent)
        except EaselClientError as error:
            raise (sent.error or error) from error

    def contenders(self, intent: str = "") -> ranker_pb2.ListContendersResponse:
        """Return who takes part, by name."""
        with _translated():
            return self.ranker.ListContenders(ranker_pb2.ListContendersRequest(intent=intent))

    def put_contender(
        self, name: str, options: requests.GenerateOptions | None = None, *, intent: str = ""
    ) -> ranker_pb2.PutContenderResponse:
        """Let a model of the generator with these options take part, or, with None, a name whose
        pictures are given."""
        request = ranker_pb2.PutContenderRequest(
            intent=intent, contender=requests.contender(name, options)
        )
        with _translated():
            return self.ranker.PutContender(request)

    def delete_contender(
        self, name: str, *, intent: str = ""
    ) -> ranker_pb2.DeleteContenderResponse:
        """Let it take part no more; its votes stay."""
        request = ranker_pb2.DeleteContenderRequest(intent=intent, name=name)
        with _translated():
            return self.ranker.DeleteContender(request)

    def put_arena_prompts(
        self, prompts: Sequence[str], *, intent: str = ""
    ) -> ranker_pb2.PutArenaPromptsResponse:
        """Add prompts for contenders that make their pictures."""
        request = ranker_pb2.PutArenaPromptsRequest(intent=intent, prompts=prompts)
        with _translated():
            return self.ranker.PutArenaPrompts(request)

    def put_arena_picture(
        self, contender: str, prompt: str, image: Picture, *, intent: str = ""
    ) -> bool:
        """Give a contender's picture for a prompt; returns whether it is new."""
        request = ranker_pb2.PutArenaPictureRequest(
            intent=intent, contender=contender, prompt=prompt, image=to_message(image)
        )
        with _translated():
            return not self.ranker.PutArenaPicture(request).repeated_call


def _to(service: str) -> tuple[tuple[str, str]]:
    """The metadata by which the gateway knows which service is meant."""
    return (("easel-service", service),)


class _Outgoing(Iterator[M]):
    """Keeps what the caller's iterator raised: gRPC reads it in a thread of its own, where the
    exception would be lost and only a cancelled call seen."""

    def __init__(self, messages: Iterator[M]) -> None:
        self._messages = messages
        self.error: Exception | None = None

    def __next__(self) -> M:
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise


def _identified(
    images: Iterable[Picture | tuple[str, Picture]],
) -> Iterator[tuple[str, Picture]]:
    for number, image in enumerate(images):
        yield image if isinstance(image, tuple) else (str(number), image)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise EaselClientError.from_call(error) from error  # type: ignore[arg-type]


def _events(
    start: Callable[[], Any], read: Callable[[Any], E | None], sent: _Outgoing[Any] | None = None
) -> Iterator[E]:
    call = start()  # not before the first event is asked for: only then will `finally` run
    try:
        with _translated():
            for message in call:
                event = read(message)
                if event is not None:
                    yield event
    except EaselClientError as error:
        if sent is not None and sent.error is not None:
            raise sent.error from error
        raise
    finally:
        call.cancel()
