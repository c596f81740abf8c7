"""Training with TRL's `SFTTrainer`. Importing this imports torch."""

from job.training.build import TrainingData
from job.training.fitting import Fit
from job.training.loadable import check_loadable
from job.training.observer import Judge, Saved, Step, TrainingObserver
from job.training.resumed import Resume
from job.training.state import TrainingState
from job.training.train import TrainingResult, load_adapter, train

__all__ = [
    "Fit",
    "Judge",
    "Resume",
    "Saved",
    "Step",
    "TrainingData",
    "TrainingObserver",
    "TrainingResult",
    "TrainingState",
    "check_loadable",
    "load_adapter",
    "train",
]
