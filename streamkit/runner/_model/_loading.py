"""`ModelLoader`: from a target to a model that can be served."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from streamkit._core import NEVER, CancelSource, Reason, now
from streamkit.errors import ModelLoadFailed
from streamkit.streams import OneThread

from ._config import ModelConfig
from ._construct import Offer, load_extensions, make_model, offer
from ._environment import ENVIRONMENT_FILE, Environment
from ._failure import describe_failure
from ._module import import_class
from ._rules import Methods, examine, why_no_load
from ._secrets import SECRETS_DIR
from ._steps import Steps
from ._target import EXTENSION_MODEL, Target

logger = logging.getLogger("streamkit.model")

RETRIES_VARIABLE: Final = "NUM_LOAD_RETRIES_TRUSS"
RETRIES: Final = 1
RETRY_AFTER: Final = 1.0  # seconds
POLL_ENVIRONMENT: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that is ready.

    Attributes:
        model: The object.
        methods: Which of the known methods it has.
        config: What its config.yaml says.
        name: What to call it.
    """

    model: object
    methods: Methods
    config: ModelConfig
    name: str


class ModelLoader:
    """Imports, makes and loads one model. The process must be in the target (see ``enter``).

    Args:
        target: Where the class is.
        secrets_dir: Where secrets are mounted.
        environment_file: Says where the model is deployed.
    """

    def __init__(
        self,
        target: Target,
        *,
        secrets_dir: Path = SECRETS_DIR,
        environment_file: Path = ENVIRONMENT_FILE,
    ) -> None:
        self._target = target
        self._environment = Environment(environment_file)
        self._offered: Offer = offer(target, self._environment, secrets_dir)
        self._thread = OneThread()

    async def load(self) -> LoadedModel:
        """Load the model. Nothing of its code that may block runs on the event loop.

        Its module, its constructor and a sync ``load`` run on one thread, an async ``load`` here.
        One that raises is tried again after a second, ``NUM_LOAD_RETRIES_TRUSS`` times (once).
        The thread stays until :meth:`close`: a process that asked to be killed with its parent, as
        SGLang's do, is killed with the thread that started it (measured).

        Raises:
            ModelLoadFailed: Something of it raised (``__cause__``; ``describe_failure`` shows it
                with the user's own traceback), or it cannot be served as it is.

        Cancellation:
            Returns at once and leaves the thread to itself, a daemon whose code can ask
            ``current_token()``; half a second later the line where it hangs is reported.
        """
        began = now()
        source = CancelSource()
        logger.info("loading %s", self._target)
        if (folder := self._target.passed_over) is not None:
            logger.warning(
                "nothing else of %s is looked at: to have its config.yaml, packages and data, name "
                "the folder and not the file",
                folder,
            )
        try:
            loaded = await self._load(Steps(str(self._target), source.token, self._thread))
            source.finish()
        except BaseException:
            self.close()
            raise
        finally:
            source.cancel(Reason.REQUESTED, "the load was given up")
        logger.info("loaded %s in %.3f s", self._target, now() - began)
        return loaded

    def close(self) -> None:
        """The model is used no more: end the thread that loaded it. Idempotent."""
        self._thread.close()

    async def watch_environment(
        self, loaded: LoadedModel, *, every: float = POLL_ENVIRONMENT
    ) -> None:
        """Call the model's ``setup_environment`` whenever the file has changed; for ever.

        Returns at once for a model that has no such method. An error of it is logged, and the same
        content is not tried again.

        Cancellation:
            A call that runs is cancelled; a thread is left to itself.
        """
        while "setup_environment" in loaded.methods.by_name:
            await anyio.sleep(every)
            try:
                with OneThread() as thread:
                    steps = Steps(str(self._target), NEVER, thread)
                    await self._set_up(steps, loaded.methods)
            except ModelLoadFailed as error:
                logger.error("%s", describe_failure(error))  # noqa: TRY400 - without our frames

    async def _load(self, steps: Steps) -> LoadedModel:
        model = await self._make(steps)
        methods = await steps.in_thread("inspection", lambda: examine(model))
        await self._set_up(steps, methods)
        if hasattr(model, "load"):
            await self._run_load(steps, model)
        target = self._target
        return LoadedModel(model=model, methods=methods, config=target.config, name=target.name)

    async def _make(self, steps: Steps) -> object:
        target, offered = self._target, self._offered
        extensions = await steps.in_thread("extensions", lambda: load_extensions(target, offered))
        if target.source is None and target.module is None:
            make = extensions[EXTENSION_MODEL].model_override
            return await steps.in_thread("constructor", make)
        model_class = await steps.in_thread("import", lambda: import_class(target))
        return await steps.in_thread(
            "constructor", lambda: make_model(model_class, extensions, offered)
        )

    async def _set_up(self, steps: Steps, methods: Methods) -> None:
        """Tell the model its environment, if it wants to know and there is news."""
        method = methods.by_name.get("setup_environment")
        if method is None:
            return
        environment = await steps.in_thread("environment", self._environment.news)
        if environment is not None:
            logger.info("setting up %s for %s", self._target, environment)
            await steps.run("setup_environment()", method.call, environment)

    async def _run_load(self, steps: Steps, model: Any) -> None:
        why_not = why_no_load(model)
        if why_not is not None:
            raise ModelLoadFailed(why_not)
        retries = _retries()
        for attempt in range(1, retries + 1):
            try:
                await steps.run("load()", model.load)
            except ModelLoadFailed as error:
                if not isinstance(error.__cause__, Exception):  # it wants to end the process
                    raise
                said = describe_failure(error)
                logger.warning("%s\ntrying again (%d of %d)", said, attempt, retries)
                await anyio.sleep(RETRY_AFTER)
            else:
                return
        await steps.run("load()", model.load)


def _retries() -> int:
    text = os.environ.get(RETRIES_VARIABLE, str(RETRIES))
    try:
        return int(text)
    except ValueError:
        raise ModelLoadFailed(f"{RETRIES_VARIABLE} should be a number, got {text!r}") from None
