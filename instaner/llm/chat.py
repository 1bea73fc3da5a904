import os
import re
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any, Iterable

from ..errors import InstaNERError

if TYPE_CHECKING:
    import openai


class Chat:
    """A model behind any server that speaks OpenAI's chat completions.

    sample (int): Which of several answers to a prompt is asked for, from 0. A server
        draws each answer anew, so this only names the request.
    usage (Counter[str]): Requests, prompt_tokens and completion_tokens so far, as the
        server reports them.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None,
        key_variable: str,
        params: dict[str, Any],
        max_retries: int,
        timeout: float,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self.key_variable = key_variable
        self.params = params
        self.max_retries = max_retries
        self.timeout = timeout
        self.sample = 0
        self.usage: Counter[str] = Counter()

    @cached_property
    def _client(self) -> "openai.OpenAI":
        # Made at the first request: a pipeline can be loaded without a key, and the
        # commands do not wait for an import that most of them do not need.
        import openai

        key = os.environ.get(self.key_variable)
        if not key:
            raise InstaNERError(
                f"No API key for {self.name}: set the environment variable "
                f"{self.key_variable} (to any word, if your server needs no key)."
            )
        try:
            return openai.OpenAI(
                api_key=key,
                base_url=self.base_url,  # None: OPENAI_BASE_URL, then OpenAI itself
                max_retries=self.max_retries,
                timeout=self.timeout,
            )
        except Exception as err:  # the InvalidURL of the SDK's HTTP library
            raise InstaNERError(
                f"The address of {self.name} cannot be used ({err}). Mend "
                "OPENAI_BASE_URL or the config's base_url."
            ) from err

    def __call__(self, prompts: Iterable[Iterable[str]]) -> Iterable[Iterable[str]]:
        """Ask for the answers to prompts, lazily and in order.

        prompts (Iterable[Iterable[str]]): Prompts of the shards of each doc.
        YIELDS (Iterable[str]): Answers to the shards of each doc.
        RAISES (InstaNERError): Without a key, and when the server refuses, cannot be
            reached, or answers with something else than a chat completion.
        """
        for shards in prompts:
            yield [self._ask(prompt) for prompt in shards]

    def _ask(self, prompt: str) -> str:
        client = self._client
        import openai

        try:
            completion = client.chat.completions.create(
                model=self.name,
                messages=[{"role": "user", "content": prompt}],
                extra_body=self.params,  # whatever the server takes
            )
            answer, usage = _read_completion(completion)
        except openai.APIConnectionError as err:
            raise InstaNERError(
                f"{client.base_url} cannot be reached ({err}). Check the network, and "
                "the address in OPENAI_BASE_URL or the config's base_url."
            ) from err
        except openai.APIError as err:
            raise InstaNERError(
                f"{client.base_url} refused a request to {self.name}: "
                f"{_hide(client.api_key, ' '.join(err.message.split()))}"
            ) from err
        except (AttributeError, LookupError, TypeError, ValueError) as err:
            raise InstaNERError(
                f"{client.base_url} did not answer with a chat completion ({err}). "
                "Check that the address is that of an OpenAI-compatible server, "
                "which often ends in /v1."
            ) from err
        self.usage.update(usage, requests=1)
        return answer


def _read_completion(completion: Any) -> tuple[str, dict[str, int]]:
    # The SDK does not check what a server sends against its types.
    answer = completion.choices[0].message.content
    usage = {
        name: getattr(completion.usage, name) or 0
        for name in ("prompt_tokens", "completion_tokens")
        if completion.usage is not None
    }
    if not isinstance(answer, str | None):
        raise TypeError(f"its content is of type {type(answer).__name__}")
    if not all(isinstance(count, int) for count in usage.values()):
        raise TypeError("its usage is not in whole numbers")
    return answer or "", usage


def _hide(key: str, message: str) -> str:
    # Some servers quote the key that they refuse. Whole words: it may be any word.
    return re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", "…", message)


def make_chat(
    name: str,
    *,
    base_url: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    params: dict[str, Any] | None = None,
    max_retries: int = 5,
    timeout: float = 120.0,
) -> Chat:
    """Registered as instaner.Chat.v1: a spacy-llm model over any server that speaks
    OpenAI's chat completions, by the official SDK.

    name (str): Name of the model, as the server knows it.
    base_url (Optional[str]): Address of the server, up to and with /v1. None: that of
        the environment variable OPENAI_BASE_URL, else OpenAI's own.
    key_variable (str): Environment variable that holds the key. The key itself is
        never a setting, so that it is in no file.
    params (Optional[Dict[str, Any]]): Passed on with each request, e.g. temperature.
    max_retries (int): How often a failed request is sent again: the SDK backs off on
        408, 409, 429, 5xx and cut connections.
    timeout (float): Seconds to wait for an answer.
    RETURNS (Chat): The model. No request is sent, and no key read, before it is called.
    """
    return Chat(
        name,
        base_url=base_url,
        key_variable=key_variable,
        params=dict(params or {}),
        max_retries=max_retries,
        timeout=timeout,
    )
