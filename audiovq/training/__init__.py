"""Training, stage by stage: autoencoder, context tables, prior, masked prior.

May import `generation`, `codec`, `models` and below. Start with `run.train`; `loop.Trainer` is the loop that all stages
share (steps, schedule, validation, resuming), and each stage is a file.
"""
