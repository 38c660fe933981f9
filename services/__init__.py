"""Easel's services: the shared core and one package per kind of model."""
