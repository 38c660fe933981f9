"""The judges. Each says in a unit of its own how good a picture is, or which of two is better:

``label``: the log-probability that the classifier gives to a label. ``similarity``: to reference
pictures, by the classifier's embeddings. ``text_image``: to a text, by a network like CLIP
(``clip``). ``reward``: whatever an installed plug-in makes of it. ``panel`` adds several up by
weight, and ``preference`` makes scores of comparisons.
"""
