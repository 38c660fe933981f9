"""The catalogue's models as offers, kept up with its revisions."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from ranker.catalogue import store
from ranker.catalogue.model import Model
from ranker.graph.index import MatchIndex, Meaning, Shelf
from ranker.graph.offers import Offer


class CatalogueReader:
    """Reads what changed since it last read. Blocking, and for one thread at a time."""

    def __init__(self, meaning: Meaning | None = None) -> None:
        self._shelf = Shelf(meaning)
        self._revision = 0
        self._models: dict[str, Model] = {}

    def read(self, connection: Connection) -> Catalogue:
        """The catalogue as the connection's transaction sees it."""
        revision = store.revision(connection)
        changed = store.changed_since(connection, self._revision)
        self._shelf.put([offer for model in changed for offer in offers(model)])
        # Another dictionary each time: answers are still made from the catalogues read before.
        known = self._models | {model.id: model for model in changed}
        self._models = {id: known[id] for id in store.ids(connection)}
        self._shelf.keep_only([model.id for model in self._models.values() if model.capabilities])
        self._revision = revision
        return Catalogue(self._shelf.index(revision), self._models)


class Catalogue:
    """The models of one revision, and the index over what they offer; it does not change."""

    def __init__(self, index: MatchIndex, models: dict[str, Model]) -> None:
        self.index = index
        self._models = models
        self.types = frozenset(model.type for model in models.values())

    @property
    def revision(self) -> int:
        return self.index.revision

    def model(self, offer: Offer) -> Model:
        return self._models[offer.model]


def offers(model: Model) -> Iterable[Offer]:
    """One a capability."""
    for capability in model.capabilities:
        yield Offer(
            model=model.id,
            capability=capability.id,
            type=model.type,
            name=capability.name,
            description=capability.description,
            intents=capability.intents,
            best_for=capability.best_for,
            model_name=model.name,
            aliases=model.aliases,
        )
