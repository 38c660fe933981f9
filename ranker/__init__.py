"""Rankings of pictures and of models. Nothing here loads a model library.

``pictures``: best-of-N while the candidates form, and rankings of given pictures, by ``judges``,
pruned by what ``pruning`` has calibrated. ``index``: pictures searched by likeness.

``catalogue``: models, and what is true of what is said of them. ``graph``: which of them can do
what is wanted, and how that ended. ``arena``: votes on pairs of their pictures. ``score`` and
``comparison`` tell what these come to.

``database`` keeps all of it. ``service`` has the RPCs and hands each to the service of its topic.
"""
