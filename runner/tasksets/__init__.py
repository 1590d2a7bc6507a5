"""Where task sets come from: random generators, sets written down, and examples."""

from runner.tasksets.boundary import BoundaryTaskSets
from runner.tasksets.examples import (
    Cond420TaskSet,
    CondMod0TaskSet,
    HelloWorldTaskSet,
    Hey0TaskSet,
    Hey3TaskSet,
    Hey6TaskSet,
    Idle0TaskSet,
    Linpack0TaskSet,
    Namaste0TaskSet,
    Pi0TaskSet,
    Spin0TaskSet,
    Tumatmul0TaskSet,
)
from runner.tasksets.explicit import ExplicitTaskSets
from runner.tasksets.generated import RandomTaskSets
from runner.tasksets.growing import GrowingTaskSets
from runner.tasksets.uunifast import UUniFastTaskSets

__all__ = [
    "BoundaryTaskSets",
    "Cond420TaskSet",
    "CondMod0TaskSet",
    "ExplicitTaskSets",
    "GrowingTaskSets",
    "HelloWorldTaskSet",
    "Hey0TaskSet",
    "Hey3TaskSet",
    "Hey6TaskSet",
    "Idle0TaskSet",
    "Linpack0TaskSet",
    "Namaste0TaskSet",
    "Pi0TaskSet",
    "RandomTaskSets",
    "Spin0TaskSet",
    "Tumatmul0TaskSet",
    "UUniFastTaskSets",
]
