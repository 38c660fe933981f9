"""A model's score of 0 to 100 in five parts, each with its evidence and an interval.

``evidence`` is all that a score is computed from, ``components`` values the five parts, ``formula``
weighs and adds them, ``record`` writes a score so that it can be computed again bit for bit.
"""
