"""One file a change of the schema, ``vNNNN_what.py``, each standing on the one before it.

A file says what it does in full and imports no table: tables change later, files never do. A test
compares what all of them make with the tables as they are.
"""
