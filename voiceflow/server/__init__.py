"""The server: from a pipeline file to answered calls.

loader, project   a user's file, with readable errors    admission   one-time tokens
server            calls and their good end               listener    the HTTP port, signals
"""
