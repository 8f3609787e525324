"""OpenAI-compatible servers (vLLM, and others that return token ids): requests are spread over them, failures retried.

Text is never tokenised again: the model would be trained on other token ids than were sampled. A server that does not
return ids is refused.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.records import Completion, Request
from o1p_jax.runtime.errors import BadInput, SamplerGone
from o1p_jax.sampling.base import SamplingParams

_ATTEMPTS = 6
"""How often a request is tried, each time at the next server; with the waits in between about half a minute."""
_LONGEST_WAIT_S = 15.0


class ServerSampler:
    """A sampler that asks `config.servers`, `config.slots` requests at a time.

    `model` is the name to ask for where a server holds several models; a server with one model is asked for that one.
    """

    name = "server"

    def __init__(self, config: SamplingConfig, model: str):
        import openai

        key = os.environ.get(config.api_key_env) or "none"
        self.version = f"openai {openai.__version__}"
        self._threads = config.slots
        self._clients = [
            openai.OpenAI(base_url=url, api_key=key, timeout=config.timeout_s, max_retries=0) for url in config.servers
        ]
        self._calls = itertools.count()
        self.model = _choose(self._call(lambda client: [m.id for m in client.models.list().data]), model)

    def sample(
        self, requests: Sequence[Request], params: SamplingParams, on_done: Callable[[int], None]
    ) -> list[Completion]:
        """See `Sampler.sample`. Raises `BadInput` when a server refuses the request or returns no token ids."""
        with ThreadPoolExecutor(self._threads) as pool:
            futures = [pool.submit(self._complete, request, params) for request in requests]
            try:
                for future in as_completed(futures):
                    future.result()
                    on_done(1)
            finally:
                pool.shutdown(cancel_futures=True)
            return [future.result() for future in futures]

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            client.close()

    def _complete(self, request: Request, params: SamplingParams) -> Completion:
        """The completion of one request."""
        # Everything is named: a server fills what is left out from the model's generation_config.json.
        extra = {
            "top_k": params.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": list(params.stop_ids),
            "return_token_ids": True,
        }
        answer = self._call(
            lambda client: client.completions.create(
                model=self.model,
                prompt=list(request.prompt_ids),
                seed=request.seed,
                max_tokens=params.max_tokens,
                temperature=params.temperature,
                top_p=params.top_p,
                presence_penalty=0.0,
                frequency_penalty=0.0,
                extra_body=extra,
            )
        )
        [choice] = answer.choices
        ids = getattr(choice, "token_ids", None)
        if ids is None:
            raise BadInput(
                "sampling.servers: the server gives no token ids; serve the model with vLLM 0.11 or later, "
                "or choose sampling.sampler=vllm"
            )
        if choice.finish_reason not in ("stop", "length"):
            raise SamplerGone(f"a server ended a completion with finish_reason={choice.finish_reason}; see its log")
        return Completion(tuple(ids), choice.finish_reason)

    def _call(self, ask: Callable[[Any], Any]) -> Any:
        """Calls `ask(client)` for one server after the other until one answers; the next call begins a server later."""
        import openai
        import tenacity

        servers = itertools.cycle(self._clients)
        for _ in range(next(self._calls) % len(self._clients)):
            next(servers)
        transient = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)
        try:
            for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(transient),
                stop=tenacity.stop_after_attempt(_ATTEMPTS),
                wait=tenacity.wait_random_exponential(max=_LONGEST_WAIT_S),
                reraise=True,
            ):
                with attempt:
                    return ask(next(servers))
        except transient as e:
            urls = ", ".join(str(client.base_url) for client in self._clients)
            raise SamplerGone(
                f"no answer from {urls} in {_ATTEMPTS} attempts ({_first_line(e)}); start the server "
                "and run the command again"
            ) from e
        except openai.APIStatusError as e:
            raise BadInput(f"{e.request.url} refused the request: {_first_line(e)}") from e


def _choose(served: list[str], model: str) -> str:
    """The name of the model that the server is asked for."""
    if len(served) != 1 and model not in served:
        raise BadInput(f"model={model}: the server has {', '.join(served) or 'no model'}; name one of them")
    return served[0] if len(served) == 1 else model


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0]
