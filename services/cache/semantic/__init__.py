"""Answers by meaning: which stored question is so like another that its answer may stand for it.

The index knows questions only: where an answer stands, how long, and what it says are the store's. An answer that was
evicted or invalidated is therefore a miss, whatever the index still believes.
"""
