"""Speed of CapRPC beside its peers: every peer over mutual TLS, in the same run, round by round.

``cases`` says what is measured, ``targets`` what is promised; a module in ``peers`` teaches the benchmark one
more system. ``runner`` starts a server process (``serving``) and a client process (``working``) for each peer.
"""
