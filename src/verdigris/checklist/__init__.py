"""The checklist as a program: ten modules of boxes, each with its page."""
