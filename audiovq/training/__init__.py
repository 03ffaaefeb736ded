"""Training, stage by stage: autoencoder, vivid decoder, context tables, prior, masked prior.

May import `generation`, `codec`, `models` and below. Start with `run.train`, which trains the stages in `stages` one
after the other; `stage.Stage` says what a stage is. `loop.Trainer` is their loop: steps, schedule, validation;
`muon.Muon` is its optimizer, `state` saves and resumes it. `budget.TimeBudget` divides a time limit, `folder` guards
the model folder, `card` writes its README, `samples` the sounds to listen to during training. `origin` is the model
that a training starts from, `more` trains a finished model further.
"""
