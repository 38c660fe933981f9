"""The one door: passes every service's RPCs through as bytes, and tells the state of all of them.

``routing`` and ``metadata`` are pure; ``upstream`` is one service behind the gateway with its
channel and counters; ``proxy`` carries the calls; ``status`` asks all upstreams at once.
"""
