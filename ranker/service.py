"""The ranker's RPCs, each handed to the service of its topic; others answer UNIMPLEMENTED."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, suppress
from typing import Any, Final

import grpc
from prometheus_client import CollectorRegistry

from easel.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from ranker.arena.metrics import ArenaMetrics
from ranker.arena.service import ArenaService
from ranker.arena.upstream import Painter
from ranker.catalogue.facts import LiveFacts
from ranker.catalogue.service import CatalogueService
from ranker.catalogue.upstream import ServedModels
from ranker.comparison.service import ComparisonService
from ranker.comparison.votes import ArenaVotes
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.graph.metrics import GraphMetrics
from ranker.graph.service import GraphService
from ranker.index.service import IndexService
from ranker.index.stores import store_for
from ranker.index.upstream import IndexClassifier
from ranker.pictures.judges.reward import Plugins
from ranker.pictures.judges.service import JudgesService
from ranker.pictures.metrics import BestOfMetrics
from ranker.pictures.pruning.service import PruningService
from ranker.pictures.service import PicturesService
from ranker.pictures.upstream import CLASSIFIER, GENERATOR, ClassifierClient, GeneratorClient
from ranker.score.scorer import Scorer
from ranker.score.service import ScoreService
from services.core.server.app import Application
from services.core.server.channel import ChannelLimits, open_channel
from services.core.server.metrics import ClientMetrics
from services.core.server.scopes import ADMIN, Scopes

log = logging.getLogger("easel.ranker")

SERVICE_NAME: Final = "easel.ranker.v1.RankerService"
Context = grpc.aio.ServicerContext[Any, Any]


class _OpenCalls:
    """Counts the calls that are being served: ``with calls: ...``."""

    def __init__(self) -> None:
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self._open += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()

    async def ended(self) -> None:
        """Return once none is open."""
        await self._idle.wait()


class RankerServicer(ranker_pb2_grpc.RankerServiceServicer):
    """Counts the calls under way, and knows which topic answers which."""

    def __init__(
        self,
        calls: _OpenCalls,
        scopes: Scopes,
        pictures: PicturesService,
        catalogue: CatalogueService,
        index: IndexService,
        pruning: PruningService,
        arena: ArenaService,
        graph: GraphService,
        comparison: ComparisonService,
        scores: ScoreService,
    ) -> None:
        self._calls = calls
        self._scopes = scopes
        self._pictures = pictures
        self._catalogue = catalogue
        self._index = index
        self._pruning = pruning
        self._arena = arena
        self._graph = graph
        self._comparison = comparison
        self._scores = scores

    async def BestOf(
        self,
        request: ranker_pb2.BestOfRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncGenerator[ranker_pb2.BestOfEvent, None]:
        with self._calls:
            async with aclosing(self._pictures.best_of(request)) as messages:
                async for message in messages:
                    yield message

    async def RankImages(
        self,
        request: ranker_pb2.RankImagesRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.RankImagesResponse:
        with self._calls:
            return await self._pictures.rank_images(request)

    async def Resolve(
        self,
        request: ranker_pb2.ResolveRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ResolveResponse:
        with self._calls:
            return await self._graph.resolve(request)

    async def RecordOutcome(
        self,
        request: ranker_pb2.RecordOutcomeRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.RecordOutcomeResponse:
        with self._calls:
            return await self._graph.record_outcome(request)

    async def Compare(
        self,
        request: ranker_pb2.CompareRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.CompareResponse:
        with self._calls:
            return await self._comparison.compare(request)

    async def ListScores(
        self,
        request: ranker_pb2.ListScoresRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ListScoresResponse:
        with self._calls:
            return await self._scores.list(request)

    async def GetCatalogueModel(
        self,
        request: ranker_pb2.GetCatalogueModelRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.GetCatalogueModelResponse:
        with self._calls:
            return await self._catalogue.get(request)

    async def ListCatalogueModels(
        self,
        request: ranker_pb2.ListCatalogueModelsRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ListCatalogueModelsResponse:
        with self._calls:
            return await self._catalogue.list(request)

    async def PutCatalogueModel(
        self,
        request: ranker_pb2.PutCatalogueModelRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.PutCatalogueModelResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._catalogue.put(request)

    async def DeleteCatalogueModel(
        self,
        request: ranker_pb2.DeleteCatalogueModelRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.DeleteCatalogueModelResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._catalogue.delete(request)

    async def ExportCatalogue(
        self,
        request: ranker_pb2.ExportCatalogueRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ExportCatalogueResponse:
        with self._calls:
            return await self._catalogue.export(request)

    async def ImportCatalogue(
        self,
        request: ranker_pb2.ImportCatalogueRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ImportCatalogueResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._catalogue.import_(request)

    async def IndexImages(
        self,
        request_iterator: AsyncIterable[ranker_pb2.IndexImagesRequest],
        context: Context,  # noqa: ARG002
    ) -> AsyncGenerator[ranker_pb2.IndexImagesResponse, None]:
        with self._calls:
            async with aclosing(self._index.index_images(request_iterator)) as answers:
                async for answer in answers:
                    yield answer

    async def SearchImages(
        self,
        request: ranker_pb2.SearchImagesRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.SearchImagesResponse:
        with self._calls:
            return await self._index.search_images(request)

    async def ListImages(
        self,
        request: ranker_pb2.ListImagesRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ListImagesResponse:
        with self._calls:
            return await self._index.list_images(request)

    async def DeleteImages(
        self,
        request: ranker_pb2.DeleteImagesRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.DeleteImagesResponse:
        with self._calls:
            return await self._index.delete_images(request)

    async def CreateCollection(
        self,
        request: ranker_pb2.CreateCollectionRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.CreateCollectionResponse:
        with self._calls:
            return await self._index.create_collection(request)

    async def ListCollections(
        self,
        request: ranker_pb2.ListCollectionsRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ListCollectionsResponse:
        with self._calls:
            return await self._index.list_collections(request)

    async def DeleteCollection(
        self,
        request: ranker_pb2.DeleteCollectionRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.DeleteCollectionResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._index.delete_collection(request)

    async def CalibratePruning(
        self,
        request: ranker_pb2.CalibratePruningRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncGenerator[ranker_pb2.CalibratePruningEvent, None]:
        with self._calls:
            async with aclosing(self._pruning.calibrate(request)) as messages:
                async for message in messages:
                    yield message

    async def NextPair(
        self,
        request: ranker_pb2.NextPairRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.NextPairResponse:
        with self._calls:
            return await self._arena.next_pair(request)

    async def RecordVote(
        self,
        request: ranker_pb2.RecordVoteRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.RecordVoteResponse:
        with self._calls:
            return await self._arena.record_vote(request)

    async def ListLeaderboard(
        self,
        request: ranker_pb2.ListLeaderboardRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ListLeaderboardResponse:
        with self._calls:
            return await self._arena.list_leaderboard(request)

    async def ListJudges(
        self,
        request: ranker_pb2.ListJudgesRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ListJudgesResponse:
        with self._calls:
            return await self._arena.list_judges(request)

    async def ListContenders(
        self,
        request: ranker_pb2.ListContendersRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ListContendersResponse:
        with self._calls:
            return await self._arena.list_contenders(request)

    async def PutContender(
        self,
        request: ranker_pb2.PutContenderRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.PutContenderResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._arena.put_contender(request)

    async def DeleteContender(
        self,
        request: ranker_pb2.DeleteContenderRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.DeleteContenderResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._arena.delete_contender(request)

    async def PutArenaPrompts(
        self,
        request: ranker_pb2.PutArenaPromptsRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.PutArenaPromptsResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._arena.put_prompts(request)

    async def PutArenaPicture(
        self,
        request: ranker_pb2.PutArenaPictureRequest,
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.PutArenaPictureResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._arena.put_picture(request)

    async def JudgePairs(
        self,
        request: ranker_pb2.JudgePairsRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncGenerator[ranker_pb2.JudgePairsResponse, None]:
        with self._calls:
            async with aclosing(self._arena.judge_pairs(request)) as messages:
                async for message in messages:
                    yield message

    async def ImportVotes(
        self,
        request_iterator: AsyncIterable[ranker_pb2.ImportVotesRequest],
        context: Context,  # noqa: ARG002
    ) -> ranker_pb2.ImportVotesResponse:
        self._scopes.require(ADMIN)
        with self._calls:
            return await self._arena.import_votes(request_iterator)


class RankerApp(Application):
    """The ranker as a process. It is SERVING when it listens: its upstreams may come and go, and
    a call that needs one that is away says which."""

    service_names = (SERVICE_NAME,)

    def __init__(
        self,
        settings: RankerSettings,
        registry: CollectorRegistry,
        plugins: Plugins | None = None,
    ) -> None:
        """``plugins``: the judges that other packages bring; those installed when None."""
        self.settings = settings
        self.registry = registry
        self._options = settings
        self._channels: list[grpc.aio.Channel] = []
        self._calls = _OpenCalls()
        self._database = Database(settings.database)
        self._plugins = plugins
        self._judges: JudgesService | None = None
        self._catalogue: CatalogueService | None = None
        self._index: IndexService | None = None
        self._pruning: PruningService | None = None
        self._arena: ArenaService | None = None
        self._graph: GraphService | None = None

    def register(self, server: grpc.aio.Server) -> None:
        metrics = ClientMetrics(self.registry)
        limits = ChannelLimits(max_message_bytes=self._options.max_message_bytes)
        targets = (self._options.classifier_target, self._options.generator_target)
        self._channels = [open_channel(each, limits=limits, metrics=metrics) for each in targets]
        classifier, generator = self._channels
        self._judges = JudgesService(self._options, ClassifierClient(classifier), self._plugins)
        generation = GeneratorClient(generator)
        self._pruning = PruningService(self._options, self._judges, generation)
        pictures = PicturesService(
            self._options,
            self._judges,
            generation,
            BestOfMetrics(self.registry),
            self._pruning,
        )
        live = LiveFacts([ServedModels(CLASSIFIER, classifier), ServedModels(GENERATOR, generator)])
        scorer = Scorer(self._options, self._database)
        self._catalogue = CatalogueService(self._options, self._database, live, scorer)
        self._index = IndexService(
            self._options,
            IndexClassifier(classifier),
            store_for(self._options, self._database),
        )
        self._arena = ArenaService(
            self._options,
            self._database,
            Painter(generation),
            pictures.rank_images,
            ArenaMetrics(self.registry),
        )
        self._graph = GraphService(self._options, self._database, GraphMetrics(self.registry))
        comparison = ComparisonService(
            self._database,
            self._catalogue,
            scorer,
            ArenaVotes(self._database, self._arena.standings),
            self._options.score_min_evidence,
        )
        scopes = Scopes(
            administration=self._options.administered,
            setting=self._options.administration_variable(),
        )
        servicer = RankerServicer(
            self._calls,
            scopes,
            pictures,
            self._catalogue,
            self._index,
            self._pruning,
            self._arena,
            self._graph,
            comparison,
            ScoreService(self._database),
        )
        ranker_pb2_grpc.add_RankerServiceServicer_to_server(servicer, server)

    def load(self) -> None:
        """Open the database, and the networks that the ranker runs itself: judges', and that of the
        match graph; all other models are the upstreams'."""
        self._database.connect()
        if self._database.is_in_memory:
            log.warning("all is kept in memory and lost at the stop: no data_dir, no database_url")
        assert self._judges is not None, "it is registered first"
        assert self._pruning is not None, "it is registered first"
        self._judges.load()
        self._pruning.load()
        assert self._graph is not None, "it is registered first"
        self._graph.load()

    async def start(self) -> None:
        """Fill an empty catalogue and read it for search, open the image index; channels connect
        when they are used."""
        assert self._catalogue is not None, "it is registered first"
        assert self._index is not None, "it is registered first"
        await self._catalogue.start()
        await self._index.start()
        assert self._graph is not None, "it is registered first"
        await self._graph.start()

    async def drain(self, timeout_seconds: float) -> None:
        """Let the calls under way end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._calls.ended()

    async def close(self) -> None:
        if self._arena is not None:
            self._arena.close()
        if self._judges is not None:
            self._judges.close()
        for channel in self._channels:
            await channel.close()
        if self._index is not None:
            await self._index.close()
        await self._database.close()
