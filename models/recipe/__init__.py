"""The recipe of the demo pair: draws its own pictures and trains every weight that ships.

The stages follow one another: pictures are drawn (`dataset`), compressed (`vae`), labelled by
two unlike networks (`judge`, `classifier`), generated from captions (`diffusion`), measured
(`evaluate`) and written out in the layouts that diffusers and transformers load (`publish`).
Run it with `python -m models.recipe`.
"""
