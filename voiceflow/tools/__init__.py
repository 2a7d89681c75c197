"""Tools: Python functions that a model may call, and what keeps them from misfiring."""
