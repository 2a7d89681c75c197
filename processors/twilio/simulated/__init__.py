"""The other end of the wire: Twilio and a caller, simulated over real sockets. For tests, `dial` and `demo`.

caller    a phone call, scripted or by hand     call      follows the TwiML
webhook   signed requests for TwiML             stream    the media WebSocket
carrier   Twilio's end of the protocol          playout   its buffer and clock
handset   what the caller says and presses      report    what happened
"""
