"""Measures every figure that has a stated bound."""
