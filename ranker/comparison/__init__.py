"""Two models side by side: what is known of each, and whether the evidence says one is better.

``side`` is what is known of one model, ``better`` weighs outcomes and votes, ``report`` puts both
together, ``sentences`` writes the verdict from the report's numbers, ``document`` arranges all of
it once, and ``markdown`` and ``page`` print that.
"""
