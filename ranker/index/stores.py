"""Which store keeps the vectors."""

from __future__ import annotations

from ranker.config import RankerSettings
from ranker.database import Database
from ranker.index.embedded import EmbeddedStore
from ranker.index.milvus import MilvusStore
from ranker.index.pgvector import PgVectorStore
from ranker.index.store import VectorStore

DIRECTORY = "index"
"""Of graphs, in the ranker's ``data_dir``."""


def store_for(settings: RankerSettings, database: Database) -> VectorStore:
    """Milvus where it is set; else by the database: pgvector in PostgreSQL, FAISS beside SQLite."""
    if settings.index_milvus_uri:
        token = settings.index_milvus_token.get_secret_value()
        return MilvusStore(database, settings.index_milvus_uri, token)
    if database.dialect == "postgresql":
        return PgVectorStore(database, exact_size=settings.index_exact_size)
    directory = None if settings.data_dir is None else settings.data_dir / DIRECTORY
    return EmbeddedStore(database, directory, exact_size=settings.index_exact_size)
