"""The base of objects that are used in a `with` block and closed at its end."""

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """A context manager that is closed when its block ends, however it ends."""

    @abstractmethod
    def close(self) -> None:
        """Ends what the object has open."""

    def __enter__(self) -> Self:
        """The object itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the object; an exception goes on."""
        self.close()
