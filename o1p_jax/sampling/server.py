"""OpenAI-compatible servers (vLLM, and others that return token ids): requests are spread over them, failures retried.

Text is never tokenised again: the model would be trained on other token ids than were sampled. A server that does not
return ids is refused, and so is one that serves another model than it is asked for (`sampling.served`).
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.records import Completion, Request
from o1p_jax.runtime.errors import BadInput, SamplerGone
from o1p_jax.runtime.progress import say
from o1p_jax.sampling.base import Answer, SamplingParams
from o1p_jax.sampling.served import Score, check_answers, common_name

_ATTEMPTS = 6
"""How often a request is tried, each time at the next server; with the waits in between about half a minute."""
_LONGEST_WAIT_S = 15.0
_CONNECT_S = 10.0
"""How long a server may take to accept a connection, and to say what it serves."""
_PROBES, _PROBE_TOKENS = 4, 64
"""The number of prompts that every server answers first, and the length of the answers in tokens."""


class ServerSampler:
    """A sampler that asks `config.servers`, `config.slots` requests at a time, for the model in `folder`.

    Before it samples, every server answers a few prompts greedily, and the answers are compared with what the folder's
    model, computed here in `dtype`, makes of them; `others` are folders that a server might serve by mistake. `score`
    stands for `sampling.scores.score`.
    """

    name = "server"
    seeds_each = True

    def __init__(
        self, config: SamplingConfig, folder: Path, dtype: str, others: Sequence[Path] = (), score: Score | None = None
    ):
        import openai

        self.version = f"openai {openai.__version__}"
        self._folder, self._dtype, self._others, self._score = folder, dtype, others, score
        self._threads = config.slots
        self._clients = [_client(url, config) for url in config.servers]
        self._calls = itertools.count()
        self._checked = False
        served = {
            str(client.base_url): self._call(
                lambda client: [model.id for model in client.models.list(timeout=_CONNECT_S).data], [client]
            )
            for client in self._clients
        }
        self.model = common_name(served, config.served_model)

    def sample(
        self, requests: Sequence[Request], params: SamplingParams, on_done: Callable[[int], None]
    ) -> list[Completion]:
        """See `Sampler.sample`.

        Raises `BadInput` when a server serves another model, refuses a request or returns no token ids.
        """
        if not self._checked and requests:
            self._check(requests, params)
        completions: dict[int, Completion] = {}
        for i, completion in _on_threads(lambda i: self._complete(requests[i], params), len(requests), self._threads):
            completions[i] = completion
            on_done(1)
        return [completions[i] for i in range(len(requests))]

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            client.close()

    def _check(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Raises BadInput where a server does not serve the model, by its answers to the first few prompts."""
        if self._score is None:
            from o1p_jax.sampling.scores import score as own_score

            self._score = own_score
        say(
            f"asking {len(self._clients)} server{'s' * (len(self._clients) > 1)} whether {self.model} is {self._folder}"
        )
        prompts = list(dict.fromkeys(request.prompt_ids for request in requests))[:_PROBES]
        greedy = SamplingParams(
            temperature=0.0, max_tokens=min(_PROBE_TOKENS, params.max_tokens), stop_ids=params.stop_ids
        )
        answers = {
            str(client.base_url): [self._answer(prompt, greedy, client) for prompt in prompts]
            for client in self._clients
        }
        check_answers(answers, self._folder, self._others, self._dtype, self._score)
        self._checked = True

    def _answer(self, prompt_ids: tuple[int, ...], greedy: SamplingParams, client: Any) -> Answer:
        """Returns how the server of `client` answers one prompt."""
        try:
            choice, ids = self._ask(Request(prompt_ids, 0), greedy, [client], logprobs=1)
        except BadInput:  # vLLM without a tokenizer has no log-probabilities
            choice, ids = self._ask(Request(prompt_ids, 0), greedy, [client])
        told = choice.logprobs and choice.logprobs.token_logprobs
        return Answer(prompt_ids, ids, tuple(told) if told and len(told) == len(ids) and None not in told else None)

    def _complete(self, request: Request, params: SamplingParams) -> Completion:
        """Returns the completion of one request."""
        choice, ids = self._ask(request, params, self._clients)
        return Completion(ids, choice.finish_reason)

    def _ask(
        self, request: Request, params: SamplingParams, clients: Sequence[Any], **options: Any
    ) -> tuple[Any, tuple[int, ...]]:
        """Returns what one of `clients` answers to a request, and the answer's token ids."""
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
                **options,
            ),
            clients,
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
        return choice, tuple(ids)

    def _call(self, ask: Callable[[Any], Any], clients: Sequence[Any]) -> Any:
        """Calls `ask(client)` for one client after the other until one answers; the next call begins a client later."""
        import openai
        import tenacity

        servers = itertools.cycle(clients)
        for _ in range(next(self._calls) % len(clients)):
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
            urls = [str(client.base_url) for client in clients]
            raise SamplerGone(
                f"no answer from {', '.join(urls)} in {_ATTEMPTS} attempts ({_first_line(e)}{_proxies(urls)}); start "
                f"the server of {self._folder} (docs/serving.md) and run the command again"
            ) from e
        except openai.APIStatusError as e:
            raise BadInput(f"{e.request.url} refused the request: {_first_line(e)}") from e


def _on_threads(work: Callable[[int], Any], count: int, threads: int) -> Iterator[tuple[int, Any]]:
    """Yields (i, work(i)) for every i below `count`, in the order in which the threads finish them.

    What `work` raises is raised here. The threads are daemons: a process that is asked to stop does not wait for the
    answers that servers still owe it.
    """
    todo: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Any, Exception | None]] = SimpleQueue()
    stopped = threading.Event()
    for i in range(count):
        todo.put(i)

    def run() -> None:
        while not stopped.is_set():
            try:
                i = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((i, work(i), None))
            except Exception as e:
                done.put((i, None, e))

    for _ in range(min(threads, count)):
        threading.Thread(target=run, daemon=True).start()
    try:
        for _ in range(count):
            i, result, error = done.get()
            if error is not None:
                raise error
            yield i, result
    finally:
        stopped.set()


def _client(url: str, config: SamplingConfig) -> Any:
    """Returns the client of one server; one on this host is never asked through a proxy."""
    import openai

    return openai.OpenAI(
        base_url=url,
        api_key=os.environ.get(config.api_key_env) or "none",
        timeout=openai.Timeout(config.timeout_s, connect=min(_CONNECT_S, config.timeout_s)),
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=not _on_this_host(url)),
    )


def _on_this_host(url: str) -> bool:
    """Returns whether the URL's host is this one by its name, `localhost`, or a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _proxies(urls: Sequence[str]) -> str:
    """Returns, for people, which proxy stands between this process and the servers; empty where there is none."""
    through = {getproxies().get(urlsplit(url).scheme) for url in urls if not _bypassed(url)}
    named = ", ".join(sorted(filter(None, through)))
    return f", asked through the proxy {named}, which NO_PROXY=HOST turns off" if named else ""


def _bypassed(url: str) -> bool:
    return _on_this_host(url) or bool(proxy_bypass(urlsplit(url).hostname or ""))


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0]
