"""Who writes: the model of a stage, or a teacher behind an endpoint."""

from dataclasses import dataclass, fields
from pathlib import Path

from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.errors import UserError
from stair_jax.settings import Settings, default_of, setting
from stair_jax.synthesis.settings import WritingSettings

# What samples a local model, and where the same is set of an endpoint.
_LOCAL = {
    "temperature": "set teacher_endpoint.sampling.temperature",
    "top_p": "set teacher_endpoint.sampling.top_p",
    "top_k": "set what the endpoint calls it in teacher_endpoint.extra_body",
    "max_answer_tokens": "set teacher_endpoint.sampling.max_tokens",
    "max_prompt_tokens": "the endpoint knows its own limit",
}


@dataclass(frozen=True)
class TeacherSettings(Settings):
    """A teacher behind an OpenAI-compatible endpoint.

    Attributes:
      teacher_endpoint: that writes the answers, and how it samples them; without a `base_url` the
        model of the stage `model` writes.
      replies_folder: of the files of what endpoints replied, the teacher and a judge; empty: the
        folder of the stage. Elsewhere they outlive a `--redo`, which then pays for no reply again.
        It is of one stage, and what is in it counts for the caps.
    """

    teacher_endpoint: EndpointSettings = setting(EndpointSettings, absent=EndpointSettings())
    replies_folder: str = setting("", cost=True)

    @property
    def is_taught(self) -> bool:
        """Whether an endpoint writes."""
        return bool(self.teacher_endpoint.base_url)

    def replies_in(self, folder: Path) -> Path:
        """The folder of the files of replies; `folder` is that of the stage."""
        return Path(self.replies_folder).expanduser() if self.replies_folder else folder


def check_teacher(teacher: TeacherSettings, writing: WritingSettings) -> None:
    """Checks that what is set is of the writer that there is.

    Raises:
      UserError: names the setting that nothing would heed.
    """
    if not teacher.is_taught:
        if teacher.teacher_endpoint != EndpointSettings():
            raise UserError(
                "teacher_endpoint.base_url is empty, and other fields of the teacher are set: give "
                "its address, or leave them alone"
            )
        return
    for info in fields(WritingSettings):
        if info.name in _LOCAL and getattr(writing, info.name) != default_of(info):
            raise UserError(
                f"{info.name} is of a local model, and a teacher writes: leave it alone; "
                f"{_LOCAL[info.name]}"
            )
