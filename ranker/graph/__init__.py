"""The match graph: intent → capability → model, and what became of what it answered.

``index`` finds capabilities (``bm25`` over ``text``, ``meaning`` where a model is configured),
``ranking`` orders them by relevance and evidence, ``exploration`` shows some in another place now
and then, ``bias`` and ``beta`` learn from outcomes, ``log``, ``ledger`` and ``knowledge`` keep it.
"""
