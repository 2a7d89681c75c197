"""The engine: how frames move, who speaks, and how a reply dies. It knows no socket and no vendor.

processor  what users write            routes, inbox, pump   how its frames move
turns      the pure reducer            evidence              what it is told, what it answers
referee    is a voice believed?        protection            what may not be interrupted
keeper     does what the reducer says
reply      one answer, live or dead    interrupt             the seven steps that kill it
mouth      what plays replies          history               what was said
buffers    bounds, names, depths       tasks                 nothing runs without an owner
"""
