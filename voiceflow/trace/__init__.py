"""Where each millisecond of a call went.

recorder   what happened in one call, as it happens
path       the essential path of one turn, in parts that sum to the gap
"""
