"""The gauntlet: every optimizer through every storm, and how it comes out.

These names are for files with your own ``CONTESTANTS``, ``TASKS`` or ``STORMS``.
"""

from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.storms import Storm, Weather, calm
from gradstable_gauntlet.task import Disturbance, Task

__all__ = ["Contestant", "Disturbance", "Storm", "Task", "Weather", "calm"]
