"""Filters over interleaved documents: OmniCorpus's text rules, rules of images, near-duplicates of both."""
