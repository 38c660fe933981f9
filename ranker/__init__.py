"""Rankings of pictures and of models. Nothing here loads a model library.

``pictures``: best-of-N while the candidates form, and rankings of given pictures.
``service`` has the RPCs and hands each to the service of its topic.
"""
