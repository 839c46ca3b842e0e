"""The kinds of stages of a run, one short file a kind; `run/stage.py` says what a stage is."""

from stair_jax.run.stage import Stage
from stair_jax.stages.average import Average
from stair_jax.stages.dpo import Dpo
from stair_jax.stages.evaluate import Evaluate
from stair_jax.stages.export import Export
from stair_jax.stages.export_data import ExportData
from stair_jax.stages.files import Files
from stair_jax.stages.model import Model
from stair_jax.stages.pocket import Pocket
from stair_jax.stages.preferences import Preferences
from stair_jax.stages.pretrain import Pretrain
from stair_jax.stages.prm import Prm
from stair_jax.stages.search import Search
from stair_jax.stages.sft import Sft
from stair_jax.stages.synthesize import Synthesize

STAGES: dict[str, type[Stage]] = {
    "pocket": Pocket,
    "files": Files,
    "model": Model,
    "average": Average,
    "export": Export,
    "export_data": ExportData,
    "pretrain": Pretrain,
    "sft": Sft,
    "search": Search,
    "preferences": Preferences,
    "synthesize": Synthesize,
    "dpo": Dpo,
    "prm": Prm,
    "evaluate": Evaluate,
}
