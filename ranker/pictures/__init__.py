"""Best-of-N while the candidates form, and rankings of given pictures.

``contest`` decides, ``best_of`` runs, ``upstream`` talks to the two model services, ``service``
serves.
"""
