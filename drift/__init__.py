"""Drift detection on streams of observations: pure statistics. It knows no HTTP, no clock, and of tokens no more than ids.

`drift.detector` has the theory and the promise about false alarms; `docs/drift.md` has them for readers, with an example.
"""

from drift.attribution import Attribution, attribute
from drift.baseline import Baseline, BaselineError, learn
from drift.channels import LEVELS, Channel, Counts, Layout, LevelName
from drift.fitting import learn_profile
from drift.monitor import Monitor, Promise, Shift, State, Verdict
from drift.outcome import Estimate, class_mix, corrected_share, estimated_accuracy, outcome_values, weighted_share
from drift.power import detectable
from drift.profile import Observations, Profile, ProfileError
from drift.repeats import Repeats
from drift.scripts import foreign_share
from drift.sharing import Recent, Replicas
from drift.timeline import Timeline, block_of, stratum_of
from drift.words import Word, changed_words, count_words

__all__ = [
    "LEVELS",
    "Attribution",
    "Baseline",
    "BaselineError",
    "Channel",
    "Counts",
    "Estimate",
    "Layout",
    "LevelName",
    "Monitor",
    "Observations",
    "Profile",
    "ProfileError",
    "Promise",
    "Recent",
    "Repeats",
    "Replicas",
    "Shift",
    "State",
    "Timeline",
    "Verdict",
    "Word",
    "attribute",
    "block_of",
    "changed_words",
    "class_mix",
    "corrected_share",
    "count_words",
    "detectable",
    "estimated_accuracy",
    "foreign_share",
    "learn",
    "learn_profile",
    "outcome_values",
    "stratum_of",
    "weighted_share",
]
