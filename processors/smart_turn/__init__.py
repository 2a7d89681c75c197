"""Whether a caller who is silent has finished: Smart Turn. `from processors.smart_turn import SmartTurn`."""

from processors.smart_turn.detector import SmartTurn

__all__ = ["SmartTurn"]
