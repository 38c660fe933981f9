"""A lock that several readers hold at a time, or one writer alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class SharedLock:
    """A waiting writer goes before readers that come after it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._has_writer = False
        self._waiting_writers = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            while self._has_writer or self._waiting_writers:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting_writers += 1
            try:
                while self._has_writer or self._readers:
                    self._changed.wait()
            finally:
                self._waiting_writers -= 1
            self._has_writer = True
        try:
            yield
        finally:
            with self._changed:
                self._has_writer = False
                self._changed.notify_all()
