"""A causal language model that reads what is asked with sight of all of it."""

from __future__ import annotations

from chiasm.language.causal import Causal


class PrefixLM(Causal, name="prefix"):
    """A prefix language model (arXiv 1910.10683), as VideoPoet is: what stands before an answer sees all of itself.

    The answer is causal. The options are those of `causal`.
    """

    encodes_prompt = True
