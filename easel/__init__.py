"""Easel's client side: generated stubs (`easel.<kind>.v1`), `Client` and the `easel` command."""

__version__ = "0.1.0"
