"""What the ranker keeps: one SQL database under all of its topics.

``database`` reads in threads and gathers writes, over the ``engines`` of SQLite or PostgreSQL.
``schema`` is where a topic's ``tables.py`` hangs its tables, ``migration`` brings a database to the
version that this release needs by ``migrations/versions``, one numbered file a change.
"""

from ranker.database.database import Database

__all__ = ["Database"]
