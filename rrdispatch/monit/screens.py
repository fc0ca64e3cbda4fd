"""What lies over the dashboard: the question before something is done, and the help."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from rrdispatch.monit.questions import Question

KEYS = (
    ("up, down", "choose an app or a worker"),
    ("enter, tab", "to the workers, and back; esc: back to the apps"),
    ("r", "reload: new code in every worker, nobody is lost"),
    ("R", "restart the app, or the chosen worker; start a stopped app"),
    ("+ -", "one worker more or fewer; again in the question: two, …"),
    ("s", "stop: the workers finish what they have"),
    ("l", "the logs on the whole screen, and back"),
    ("e", "both streams, stderr only, stdout only"),
    ("? h", "this help"),
    ("q ctrl+c", "leave; the apps go on"),
)
NOTES = (
    "split: its part of the connections of the last minute, if it was there",
    "conns: open now   pend: given to a worker that has not taken it yet",
    "● serves  … under way  ! look at it  ○ stopped  x failed  ? no answer",
    "A question shows the command that yes will run.",
)


class Ask(ModalScreen[list[str] | None]):
    """Yes returns the command's words, no None. ``+`` and ``-`` change how far to scale."""

    BINDINGS = [  # noqa: RUF012
        Binding("y,enter", "yes", "yes"),
        Binding("n,escape,q,ctrl+c", "no", "no"),
        Binding("plus,equals_sign", "step(1)", "more"),
        Binding("minus", "step(-1)", "fewer"),
    ]

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(self._text(), id="question")

    def _text(self) -> Text:
        text = Text()
        text.append(f"{self.question.text}\n\n")
        if self.question.words:
            text.append(f"$ rrdispatch {' '.join(self.question.words)}\n\n", "bold")
        text.append(" y ", "reverse").append(" yes   ")
        text.append(" n ", "reverse").append(" no")
        if self.question.wanted:
            text.append("   ").append(" + - ", "reverse").append(" more, fewer")
        return text

    def action_yes(self) -> None:
        self.dismiss(self.question.words)

    def action_no(self) -> None:
        self.dismiss(None)

    def action_step(self, by: int) -> None:
        self.question = self.question.stepped(by)
        self.query_one("#question", Static).update(self._text())


class Help(ModalScreen[None]):
    """Keys, and what the columns mean."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,q,enter,question_mark,h,f1,space,ctrl+c", "away", "away")
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(self._text())

    def _text(self) -> Text:
        text = Text()
        for keys, what in KEYS:
            text.append(f"{keys:>10}  ", "bold").append(f"{what}\n")
        for note in NOTES:
            text.append(f"\n{note}")
        text.append("\n\n esc ", "reverse").append(" back")
        return text

    def action_away(self) -> None:
        self.dismiss(None)
