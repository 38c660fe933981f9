"""The models that the ranker knows: what they are, what they can do, and what of it is true.

``model`` says what is known of one, ``checks`` what may be, ``names`` how one is found. ``store``
keeps them, ``document`` reads and writes them as YAML, ``shipped.yaml`` has those that come along.
``facts`` are what the model services tell now; ``service`` serves.
"""
