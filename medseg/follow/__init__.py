"""The same lesion at the next visit: registration, matching, states, response."""

from medseg.follow.course import STATES, Course, Visit, follow
from medseg.follow.register import Alignment, align
from medseg.follow.response import Response, respond

__all__ = ["STATES", "Alignment", "Course", "Response", "Visit", "align", "follow", "respond"]
