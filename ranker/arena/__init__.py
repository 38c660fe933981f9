"""Models ranked by votes on pairs of their pictures.

``davidson`` fits strengths to counts, ``covariance`` and ``ranks`` say how sure they are,
``connection`` what the votes cannot compare, ``reliability`` which judges agree with the others,
``influence`` how many votes hold the leader up; ``leaderboard`` puts them together. ``selection``
chooses the next pair. None of these knows where votes come from; ``service`` serves.
"""
