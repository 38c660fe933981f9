"""Vectors of pictures where they are kept: Parquet files, FAISS indexes, Milvus collections.

Each needs an extra of its own, whose library is imported when the first vector goes there.
"""
