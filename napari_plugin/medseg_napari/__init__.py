"""medseg in napari: open, segment, correct with undo, measure, hand on. Research use only.

Qt lives in `_qt` alone; what the plugin knows and does is in classes that need no window.
"""
