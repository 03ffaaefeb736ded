"""The command line: verbs and their flags.

May import everything. Start with `verbs`, one function a verb; heavy modules are imported when a verb runs.
"""
