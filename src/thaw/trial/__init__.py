"""A trial: one recipe planned on one data set, and trained phase by phase.

`begin` (or `resume`), then `train`; what a run adds to it (evaluation, bundle, report) is in `thaw.run`.
"""

from thaw.trial.beginning import begin, begin_planned, earlier_split, join, prepare_again, resume
from thaw.trial.planning import PlannedTrial, plan_trial, prepare, with_new_head
from thaw.trial.training import Stopwatch, TrainingResult, train
from thaw.trial.trial import Trial, TrialContext, fit_settings, identity_of_baseline, trained_weights, trial_in

__all__ = [
    "PlannedTrial",
    "Stopwatch",
    "TrainingResult",
    "Trial",
    "TrialContext",
    "begin",
    "begin_planned",
    "earlier_split",
    "fit_settings",
    "identity_of_baseline",
    "join",
    "plan_trial",
    "prepare",
    "prepare_again",
    "resume",
    "train",
    "trained_weights",
    "trial_in",
    "with_new_head",
]
