"""OpenAI-compatible servers (vLLM, and others that return token ids): requests are spread over them, failures retried.

Text is never tokenised again: the model would be trained on other token ids than were sampled. A server that does not
return ids is refused, and so is one that serves another model than it is asked for (`sampling.served`).
"""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from queue import SimpleQueue
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
_PROBE_TOKENS = 64
"""The length in tokens of the answers that every server gives first."""


class ServerSampler:
    """A sampler that asks `config.servers`, `config.slots` requests at a time, for the model in `folder`.

    Before it samples, every server answers the prompts `probes` greedily, and the answers are compared with what the
    folder's model, computed here in `dtype`, makes of them; `others` are folders that a server might serve by mistake.
    `score` stands for `sampling.scores.score`. Raises `BadInput` when a server serves another model, refuses a request
    or returns no token ids.
    """

    name = "server"
    seeds_each = True

    def __init__(
        self,
        config: SamplingConfig,
        folder: Path,
        how: SamplingParams,
        dtype: str,
        probes: Sequence[tuple[int, ...]] = (),
        others: Sequence[Path] = (),
        score: Score | None = None,
    ):
        import openai

        self.version = f"openai {openai.__version__}"
        self.tokens = 0
        self._folder, self._how, self._slots = folder, how, config.slots
        self._clients = [_client(url, config) for url in config.servers]
        self._calls = itertools.count()
        self._asked = self._threads = 0
        self._tells = False
        """Whether every server tells log-probabilities."""
        self._todo: SimpleQueue[tuple[int, Request] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Completion | Exception]] = SimpleQueue()
        served = {
            str(client.base_url): self._call(
                lambda client: [model.id for model in client.models.list(timeout=_CONNECT_S).data], [client]
            )
            for client in self._clients
        }
        self.model = common_name(served, config.served_model)
        if probes:
            self._check(probes, dtype, others, score)

    @property
    def room(self) -> int:
        """See `Sampler.room`."""
        return self._slots - self._asked

    def add(self, key: int, request: Request) -> None:
        """See `Sampler.add`."""
        self._todo.put((key, request))
        self._asked += 1
        if self._threads < self._asked:
            # Daemons: a process that is asked to stop does not wait for the answers that servers still owe it.
            threading.Thread(target=self._work, daemon=True).start()
            self._threads += 1

    def step(self) -> list[tuple[int, Completion]]:
        """See `Sampler.step`; waits until an answer is there."""
        answers = [self._done.get()]
        while not self._done.empty():
            answers.append(self._done.get())
        self._asked -= len(answers)
        ended = []
        for key, answer in answers:
            if isinstance(answer, Exception):
                raise answer
            self.tokens += len(answer.token_ids)
            ended.append((key, answer))
        return ended

    def close(self) -> None:
        """Ends the threads and closes the connections."""
        for _ in range(self._threads):
            self._todo.put(None)
        for client in self._clients:
            client.close()

    def _work(self) -> None:
        """Asks for one completion after the other; runs in a thread."""
        while (todo := self._todo.get()) is not None:
            key, request = todo
            try:
                options = {"logprobs": 1} if request.logprobs and self._tells else {}
                choice, ids = self._ask(request, self._how, self._clients, **options)
                self._done.put((key, Completion(ids, choice.finish_reason, _told(choice, ids) if options else None)))
            except Exception as e:
                self._done.put((key, e))

    def _check(
        self, probes: Sequence[tuple[int, ...]], dtype: str, others: Sequence[Path], score: Score | None
    ) -> None:
        """Raises BadInput where a server does not serve the model, by its answers to `probes`."""
        if score is None:
            from o1p_jax.sampling.scores import score as own_score

            score = own_score
        say(
            f"asking {len(self._clients)} server{'s' * (len(self._clients) > 1)} whether {self.model} is {self._folder}"
        )
        greedy = SamplingParams(
            temperature=0.0, max_tokens=min(_PROBE_TOKENS, self._how.max_tokens), stop_ids=self._how.stop_ids
        )
        answers = {
            str(client.base_url): [self._answer(prompt, greedy, client) for prompt in probes]
            for client in self._clients
        }
        self._tells = all(answer.logprobs is not None for of_server in answers.values() for answer in of_server)
        check_answers(answers, self._folder, others, dtype, score)

    def _answer(self, prompt_ids: tuple[int, ...], greedy: SamplingParams, client: Any) -> Answer:
        """Returns how the server of `client` answers one prompt."""
        try:
            choice, ids = self._ask(Request(prompt_ids, 0), greedy, [client], logprobs=1)
        except BadInput:  # vLLM without a tokenizer has no log-probabilities
            choice, ids = self._ask(Request(prompt_ids, 0), greedy, [client])
        return Answer(prompt_ids, ids, _told(choice, ids))

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


def _told(choice: Any, ids: tuple[int, ...]) -> tuple[float, ...] | None:
    """Returns the log-probabilities of an answer's tokens, where the server tells all of them."""
    told = choice.logprobs and choice.logprobs.token_logprobs
    return tuple(told) if told and len(told) == len(ids) and None not in told else None


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
