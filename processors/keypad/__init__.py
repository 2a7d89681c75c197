"""Keypad: the keys that the caller presses, as entries, as a tool, and as words."""

from processors.keypad.entry import End as End
from processors.keypad.entry import Entry as Entry
from processors.keypad.entry import Wanted as Wanted
from processors.keypad.keypad import Keypad as Keypad
from processors.keypad.keypad import KeypadBusy as KeypadBusy
