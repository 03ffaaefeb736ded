"""The command line: verbs and their flags.

May import everything. Start with `main.main`: it parses a command line and runs its verb. One function a verb:
`datasets` (inspect, preprocess), `training` (train, demo), `sounds` (generate, vary, continue, repaint, morph),
`archives` (encode, decode, reconstruct), `library` (pack, find), `models` (evaluate, report, summary, plot, app,
export). A new verb is a function in one of these modules and an entry in `main._verbs`, and in `main.RESUMABLE` if it
resumes. `arguments` has the flags that verbs share; flags that are settings are fields of the dataclasses in
`config`; `refusals` puts the parser's messages into one line. Heavy modules are imported when a verb runs.
"""
