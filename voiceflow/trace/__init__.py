"""Where each millisecond of a call went.

recorder    what happened in one call, as it happens
path        the essential path of one turn, in parts that sum to the gap
file        a call that is over, as a record: the JSON file that is kept of it
folder      writes those files, off the event loop
redaction   takes what people said out of it
summary     medians, and who spoke when
table, waterfall, page    draw records: in a terminal, and as an HTML page
"""
