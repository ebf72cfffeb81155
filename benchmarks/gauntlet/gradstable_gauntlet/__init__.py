"""The gauntlet: every optimizer through every storm, and what is left of it.

What is here is for those who bring something: a file with ``CONTESTANTS``, ``TASKS`` or ``STORMS``.
"""

from gradstable_gauntlet.contestant import Contestant
from gradstable_gauntlet.storms import Storm, Weather, calm
from gradstable_gauntlet.task import Disturbance, Task

__all__ = ["Contestant", "Disturbance", "Storm", "Task", "Weather", "calm"]
