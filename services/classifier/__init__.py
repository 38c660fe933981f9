"""The classifier service: what is in a picture, and vectors that stand for it."""
