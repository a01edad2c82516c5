"""One question at a time, from Python: what `convsearch rewrite` and scripts call."""

from collections.abc import Sequence
from types import TracebackType

from convsearch.errors import DataError
from convsearch.infer.asked import how_to_ask
from convsearch.infer.engine import Engine, SamplingParams
from convsearch.infer.plan import Plan
from convsearch.infer.registry import open_engine
from convsearch.infer.runner import read_generation
from convsearch.prompts import PromptStyle, PromptTemplate
from convsearch.types import Message, Rewrite, Turn


class Rewriter:
    """A model that turns the last question of a conversation into a search query.

    Use it in a `with` block, or close it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        style: PromptStyle,
        params: SamplingParams,
        shots: int = 0,
        prompt_file: PromptTemplate | None = None,
    ) -> None:
        """engine: is closed with the rewriter. Others: see `Plan`."""
        self._engine = engine
        self._style: PromptStyle = style
        self._params = params
        self._shots = shots
        self._prompt_file = prompt_file

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        engine: str = "transformers",
        url: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        style: PromptStyle | None = None,
        shots: int = 0,
        temperature: float = 0.0,
        max_tokens: int | None = None,
    ) -> "Rewriter":
        """Opens a model and asks it as its folder says, or as named here.

        model: checkpoint folder or hub name; with engine `openai`, the endpoint's name of it, and
        url its address. Raises CheckpointError, ConfigError, DataError, DependencyError.
        """
        asked = how_to_ask(model, style=style, max_tokens=max_tokens)
        params = SamplingParams(temperature=temperature, max_tokens=asked.max_tokens)
        opened = open_engine(engine, model, device=device, dtype=dtype, url=url)
        return cls(opened, style=asked.style, params=params, shots=shots)

    def rewrite(self, question: str, history: Sequence[str] = (), *, seed: int = 0) -> Rewrite:
        """history: what was said before, oldest first, user and agent in turn.

        The text of the result is the query where its status is `ok`. Raises DataError for an empty
        question or a history that does not end with the agent, EngineError.
        """
        if not question.strip():
            raise DataError("the question is empty; ask something")
        if len(history) % 2:
            raise DataError(
                f"the history has an odd number of messages ({len(history)}); user and agent take "
                "turns in it, and it ends with the agent's answer"
            )
        said = tuple(
            Message(role="agent" if i % 2 else "user", text=_readable(text))
            for i, text in enumerate(history)
        )
        turn = Turn(
            qid="question",
            conv_id="conversation",
            turn=len(said) // 2 + 1,
            split="any",
            question=_readable(question),
            history=said,
        )
        plan = Plan(
            turns=[turn],
            style=self._style,
            params=self._params,
            seed=seed,
            shots=self._shots,
            template=self._prompt_file,
        )
        block = plan.block([0])
        [generation] = self._engine.generate(block.chats, self._params, block.seeds)
        return read_generation(plan, 0, generation)

    def query(self, question: str, history: Sequence[str] = (), *, seed: int = 0) -> str:
        """What to search in any case: the rewrite, or the question where there is none."""
        return self.rewrite(question, history, seed=seed).text or question

    def close(self) -> None:
        """Gives back the model."""
        self._engine.close()

    def __enter__(self) -> "Rewriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _readable(text: str) -> str:
    """Halves of surrogate pairs, as of an argument that is no UTF-8, become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")
