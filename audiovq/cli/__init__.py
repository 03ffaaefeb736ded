"""The command line: verbs and their flags.

May import everything. Start with `main.main`: it parses a command line and runs its verb. One function a verb: `datasets` (inspect,
preprocess), `training` (train, demo), `sounds` (generate, vary, continue, repaint, morph), `archives` (encode, decode,
reconstruct), `models` (evaluate, report, summary, plot, app, export); `arguments` has the flags that they share. Heavy
modules are imported when a verb runs.
"""
