"""The declaration: a chain as the user wrote it, before a call runs on it.

pipeline   the chain     check   what cannot work, and what to insert where     drawing   the chain as text
"""
