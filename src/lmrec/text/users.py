"""What the user table says of people, in words before their histories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmrec.data.users import UserTable, tags_of
from lmrec.errors import RecipeError, nearest
from lmrec.fields import USER_ID, TextArray, UserId, text_array
from lmrec.text.pattern import columns_of, fill, plain_words


@dataclass(frozen=True)
class UserTemplate:
    """Words of a user, from columns of the user table; an empty pattern says nothing of anybody."""

    pattern: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return columns_of(self.pattern)

    def render(self, attributes: Mapping[str, object]) -> str:
        """One user's words; blank fields disappear together with the words before them, and so do columns that are not there.

        >>> t = UserTemplate("Age: {age}. Likes: {likes}")
        >>> t.render({"age": 30.0, "likes": "jazz|tea"}), t.render({"likes": ["tea"], "town": "Ulm"}), t.render({})
        ('Age: 30. Likes: jazz, tea', 'Likes: tea', '')
        """
        values = {name: _words(attributes.get(name)) for name in self.columns}
        return fill(self.pattern, values).strip()

    def words_of(self, table: UserTable | None, user_ids: Sequence[UserId]) -> TextArray | None:
        """(B,) of these users, blank for those that the table lacks; None where the pattern is empty."""
        if not self.pattern:
            return None
        return text_array([self.render(table.attributes(user)) if table else "" for user in user_ids])

    def check(self, table: UserTable | None, key: str) -> None:
        """Raises RecipeError, naming the choice `key`, where there is no table or it lacks a column."""
        for name in self.columns:
            if table is None:
                raise RecipeError(
                    f"{key} names '{name}', and there is no user table. Give one to `lmrec fit` with --users, or leave it out"
                )
            known = [column for column in table.frame.columns if column != USER_ID]
            if name not in known:
                raise RecipeError(f"{key} names '{name}', which users lack. {nearest(name, known)}")


def _words(cell: object) -> str:
    """Several values are told apart by commas."""
    return plain_words(", ".join(tags_of(cell)))
