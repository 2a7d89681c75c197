"""The line: from a carrier's socket to frames and back. One source and one sink for every carrier.

codec      a carrier's protocol, sans-IO    link, websocket   the socket under it
stream     codec, socket and outbox         source            events become frames
sink       frames become paced audio        pacing            when the next piece is due
ledger     what the caller has heard
"""
