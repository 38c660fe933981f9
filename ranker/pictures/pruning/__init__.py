"""What pruning costs, from best-ofs that were run without it.

``trials`` is what was seen; ``replay`` prunes it after the fact; ``correlation`` says how early the
scores tell; ``search`` chooses a schedule; ``calibration`` keeps all of it in a file, and says for
which requests it holds. ``service`` makes calibrations, and answers with those there are.
"""
