"""Everything that a file in ``own/`` needs to define options of your own, in one import (docs/using.md).

Derive an option's class from the class of its group. ``key`` declares a key of the class and the values that it takes.
``clip_mode`` makes a function a clip mode, and ``metric`` makes one a metric.
"""

from tbptt.data.options import DataConfig as DataConfig
from tbptt.data.options import SplitData as SplitData
from tbptt.data.options import TableData as TableData
from tbptt.models.options import ArticleModel as ArticleModel
from tbptt.models.options import ModelConfig as ModelConfig
from tbptt.models.protocol import Network as Network
from tbptt.options.callbacks import CallbackConfig as CallbackConfig
from tbptt.options.metrics import metric as metric
from tbptt.options.option import Option as Option
from tbptt.options.option import key as key
from tbptt.options.takes import TEXT as TEXT
from tbptt.options.takes import Takes as Takes
from tbptt.options.takes import list_of as list_of
from tbptt.options.takes import number as number
from tbptt.options.takes import one_of as one_of
from tbptt.options.takes import text as text
from tbptt.options.takes import whole as whole
from tbptt.tasks.options import TaskConfig as TaskConfig
from tbptt.training.clip_modes import Gradient as Gradient
from tbptt.training.clip_modes import clip_mode as clip_mode
from tbptt.training.lr_schedules import LrSchedule as LrSchedule
from tbptt.training.lr_schedules import LrScheduleConfig as LrScheduleConfig
from tbptt.training.lr_schedules import Moment as Moment
from tbptt.training.options import OptimizerConfig as OptimizerConfig
from tbptt.training.options import ScheduleConfig as ScheduleConfig
