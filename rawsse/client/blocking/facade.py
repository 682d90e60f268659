"""A blocking class made from an async one: the same methods, properties, signatures and docstrings, without `async`.

    class BlockingMessageStream(Facade, of=MessageStream): ...

    with client.messages.stream(…) as stream:       # the blocking form of the async client's `MessageStream`
        for event in stream: ...

The async object runs on a network whose waits block instead of suspending, so each of its coroutines is driven to its
end in the caller's thread. Results are wrapped, and arguments unwrapped. Type checkers read the package's stub, which is
generated from the async classes.
"""

from __future__ import annotations

import copy
import inspect
import re
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from functools import cached_property, partial
from types import GenericAlias
from typing import Any, ClassVar

from rawsse.client.network.link import drive
from rawsse.errors import ConfigurationError, Hidden

HIDDEN = frozenset({"aclose", "call"})
"""Public names of async classes that blocking ones lack: `aclose` is `close`, `call` is for async code in the package."""

_SECRETS = frozenset({"api_key", "auth_token", "proxy"})
_SPECIAL = ("__init__", "__aenter__", "__aexit__", "__aiter__")
"""Special methods that blocking classes also have, the last three without the `a`; `__anext__` has a faster form."""

_WORDS = (
    (re.compile(r"\ban (?=`?(Async|EventStream))"), "a "),
    (re.compile(r"\b(async |await |Async(?=[A-Z])|a(?=close\b))"), ""),
    (re.compile(r"\b(?=(Conversation|EventStream|MessageStream|(With)?RawResponse|Reply|ToolRunner)\b)"), "Blocking"),
    (re.compile(r"\bPages\b"), "Page"),
    (re.compile("`(?=Blocking)"), "`rawsse.client.blocking."),  # `rawsse` does not export them
)


_ASYNC_METHOD = re.compile(r"Async\w+\.\w+\(\) ")


def in_blocking_words(text: str) -> str:
    """A docstring, an annotation or an error of async code, reworded for blocking code."""
    for pattern, word in _WORDS:
        text = pattern.sub(word, text)
    return text


class Facade:
    """The blocking form of an async object. `of` is its class; `made_by` makes one for the constructor.

    An iterator and everything that it yields (the text of a stream, the streams of a tool runner) may be used by one
    thread at a time. Any thread may close it.
    """

    _blocking: ClassVar[dict[type, type[Facade]]] = {}  # by async class
    _inner: Any  # the async object; on a class, its factory
    _reading: Any = None  # the lock of an iterator
    __class_getitem__: Any = classmethod(GenericAlias)

    def __init_subclass__(cls, of: type | None = None, made_by: type | None = None) -> None:
        if of is None:  # a user's subclass
            return
        cls._inner = made_by or of
        cls._blocking[of] = cls
        cls.__doc__ = "\n\n".join(filter(None, [in_blocking_words(inspect.getdoc(of) or ""), cls.__doc__]))
        for name in (*_SPECIAL, *filter(_is_public, dir(of))):
            member = getattr(of, name, None)
            if inspect.isfunction(member):
                method = _method(cls, name, member, _construct if name == "__init__" else _call)
                setattr(cls, method.__name__, method)
            elif inspect.isdatadescriptor(member):
                doc = in_blocking_words(inspect.getdoc(member) or "")
                setattr(cls, name, property(partial(cls.__getattr__, name=name), doc=doc))  # type: ignore[call-arg]
            elif isinstance(member, cached_property):
                setattr(cls, name, _Attribute(member))
        if hasattr(of, "__anext__"):
            cls.__next__ = cls._read  # type: ignore[attr-defined]

    def _become(self, inner: Any, giver: Any = None) -> None:
        self._inner = inner
        self._take = getattr(inner, "_take", None)
        if hasattr(inner, "__anext__"):
            # Reentrant: a thread that was interrupted before releasing it is still not "another thread".
            self._reading = vars(inner).setdefault("_reading", getattr(giver, "_reading", None) or threading.RLock())
        if hasattr(inner, "__dict__"):
            inner._facade = weakref.ref(self)

    def _read(self, steps: Any = None) -> Any:
        """The next item, or the result of a coroutine (`steps`). Raises `RuntimeError` while another thread reads.

        Also serves as `__next__`, since another call per event would be measurable. An available event needs no coroutine.
        """
        reading = self._reading or threading.RLock()
        if not reading.acquire(False):
            raise RuntimeError("another thread is reading the stream")
        try:
            try:
                if steps is not None:
                    return drive(steps)
                if (take := self._take) is None:
                    return _wrapped(drive(self._inner.__anext__()), self)
                while (item := take()) is None:
                    drive(self._inner._more())
                return item
            finally:
                reading.release()
        except StopAsyncIteration:
            raise StopIteration from None
        except BaseException as exc:
            if not isinstance(exc, Exception) and hasattr(self._inner, "_close"):
                self._inner._close()  # Ctrl-C, perhaps in the middle of an event: the stream cannot continue
            raise

    def __getattr__(self, name: str) -> Any:
        if not _is_public(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        try:
            value = getattr(self._inner, name)
        except AttributeError as exc:
            words = str(exc).replace(type(self._inner).__name__, type(self).__name__)
            raise AttributeError(in_blocking_words(words), name=name, obj=self) from None
        return partial(_call, self, name) if inspect.isroutine(value) else _wrapped(value, self)

    def __repr__(self) -> str:
        kind: Any = type(self._inner)
        if kind.__repr__ is object.__repr__:
            return super().__repr__()
        return repr(self._inner).replace(kind.__name__, type(self).__name__, 1)

    def __dir__(self) -> set[str]:
        return {*super().__dir__(), *filter(_is_public, dir(self._inner))}


class _Attribute(cached_property[Any]):
    """An attribute of the async object, in its blocking form. Unlike a property, tests can replace it."""

    def __init__(self, original: cached_property[Any]) -> None:
        super().__init__(original.func)
        self.attrname, self.__doc__ = original.attrname, in_blocking_words(inspect.getdoc(original) or "")

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else instance.__getattr__(self.attrname)


def _is_public(name: str) -> bool:
    return not name.startswith("_") and name not in HIDDEN


def _kind_of(value: Any) -> type[Facade] | None:
    return next((Facade._blocking[base] for base in type(value).__mro__ if base in Facade._blocking), None)


def _wrapped(value: Any, giver: Facade) -> Any:
    """The blocking form of an async object's result: always the same object while it exists."""
    kind = type(giver) if isinstance(value, type(giver)._inner) else _kind_of(value)
    if kind is None:
        return value
    known = getattr(value, "_facade", lambda: None)()
    if known is not None and known._inner is value:  # a copy of an async object has its attributes
        return known
    # A copy, for `with_options`: a user's class keeps its attributes.
    made: Any = copy.copy(giver) if kind is type(giver) else kind.__new__(kind)
    made._become(value, giver)
    return made


def _unwrapped(value: Any) -> Any:
    if _kind_of(value) is not None:
        raise ConfigurationError(f"a blocking class cannot use an {type(value).__name__}: give a blocking object")
    return value._inner if isinstance(value, Facade) else value


# --- Methods -------------------------------------------------------------------------------------------------------


def _method(cls: type, name: str, original: Any, call: Callable[..., Any]) -> Any:
    """A method that does `call(self, name, …)`, with the metadata of the async one, reworded for blocking code."""

    def method(self: Any, /, *arguments: Any, **options: Any) -> Any:
        for each in _SECRETS & options.keys():
            options[each] = Hidden.of(options[each])
        return call(self, name, *arguments, **options)

    signature = inspect.signature(original)
    hints = {each: in_blocking_words(hint) for each, hint in original.__annotations__.items()}
    parameters = [each.replace(annotation=hints.get(each.name, each.empty)) for each in signature.parameters.values()]
    method.__signature__ = inspect.Signature(parameters, return_annotation=hints.get("return", "Any"))  # type: ignore[attr-defined]
    method.__annotations__ = hints
    method.__doc__ = in_blocking_words(inspect.getdoc(original) or "")
    method.__module__ = cls.__module__
    method.__name__ = name.replace("__a", "__")  # `__enter__` for `__aenter__`
    method.__qualname__ = f"{cls.__qualname__}.{method.__name__}"
    method.__code__ = method.__code__.replace(co_name=method.__name__)  # for tracebacks
    return method


def _construct(self: Facade, _: str, /, *arguments: Any, **options: Any) -> None:
    self._become(_called(type(self)._inner, arguments, options))


def _call(self: Any, name: str, /, *arguments: Any, **options: Any) -> Any:
    result = _called(getattr(self._inner, name), arguments, options)
    if inspect.isawaitable(result):
        with closing(result.__await__()) as steps:
            # Any thread may close, at any time.
            result = drive(steps) if name in ("close", "__aexit__") else self._read(steps)  # type: ignore[arg-type]
    return _wrapped(result, self)


def _called(function: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    try:
        return function(*map(_unwrapped, arguments), **{name: _unwrapped(value) for name, value in options.items()})
    except TypeError as exc:
        if getattr(exc.__traceback__, "tb_next", None) is not None and not _ASYNC_METHOD.match(str(exc)):
            raise
        raise TypeError(in_blocking_words(str(exc))) from None  # wrong arguments: the error names the async method


class BlockingIterator(Facade, of=AsyncIterator):
    """An iterator over texts, models or pages."""
