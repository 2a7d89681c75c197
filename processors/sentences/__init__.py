"""Tokens into sentences. `from processors.sentences import SentenceAggregator`."""

from processors.sentences.aggregator import SentenceAggregator

__all__ = ["SentenceAggregator"]
