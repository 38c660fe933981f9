"""The Open Inference Protocol (Triton's variant) as every model service speaks it.

``tensors`` and ``model`` are plain values: what a service's own domain reads and answers with.
``statistics`` counts. ``wire`` turns the contract's messages into those values and back, and
``service`` is the servicer over a ``TensorModel``.

The generated contract registers global names that ``tritonclient`` registers too: no client of
ours may import it.
"""
