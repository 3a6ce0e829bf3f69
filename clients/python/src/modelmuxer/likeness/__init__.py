"""Whether the answer to one question may stand for another that is near it: what their words say, beside their vectors.

Pure, and in English where it knows words at all. The cache decides hits by it, and `mux cache tune` draws what it would
decide. Vectors alone are blind to what matters most: "in 2015" and "in 2016" are neighbours.
"""

from modelmuxer.likeness.difference import Difference, Kind, compare
from modelmuxer.likeness.thresholds import DEFAULT_THRESHOLD, needed, score
from modelmuxer.likeness.words import Question, read

__all__ = ["DEFAULT_THRESHOLD", "Difference", "Kind", "Question", "compare", "needed", "read", "score"]
