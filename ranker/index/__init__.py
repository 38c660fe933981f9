"""The image index: vectors of pictures, kept and searched.

``store`` says what keeps vectors, ``embedded`` (FAISS beside SQLite), ``pgvector`` and ``milvus``
do it. ``collection`` and ``entry`` are what is kept, ``limits`` what is accepted. ``upstream`` asks
the classifier, ``service`` joins them.
"""
