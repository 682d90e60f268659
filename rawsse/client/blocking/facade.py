"""A blocking class made from an async one: the same methods, properties, signatures and docstrings, without `async`.

    class BlockingMessageStream(Facade, of=stream.MessageStream, is_exclusive=True): ...

    with BlockingMessageStream._around(message_stream) as stream:
        for event in stream: ...

The async object runs on a network whose waits do not suspend, so that each of its coroutines is driven to its end in the
caller's thread. What it gives is wrapped in turn, what it takes is unwrapped. Type checkers read the stub beside the package,
which is generated from the async classes.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from types import GenericAlias, new_class
from typing import Any, ClassVar, Self, TypeVar

from rawsse.client.network.link import drive
from rawsse.errors import ConfigurationError

HIDDEN = frozenset({"aclose", "call", "run", "runs_coroutines"})
"""Public names of async classes that blocking ones lack: `aclose` is `close`, the others are for async code of the package."""

_WORDS: dict[str, str] = {
    **{name: f"Blocking{name}" for name in ("Conversation", "EventStream", "MessageStream", "Reply", "ToolRunner")},
    **{f"Async{name}": name for name in ("Beta", "Client", "Iterator", "Messages", "Models", "Page")},
    "Pages": "Page",
    "RawResponse": "BlockingRawResponse",
    "TextStream": "Iterator[str]",
    "aclose": "close",
}
_ASYNC_WORDS = re.compile(rf"\b(?:(?:async|await) |({'|'.join(_WORDS)})\b|an (?=`?(?:Async|{'|'.join(_WORDS)})\b))")

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


class Facade:
    """The blocking form of an async object.

    `of` is its class; `made_by` makes one for the constructor. An `is_exclusive` object is for one thread at a time, together
    with all that it gives: the text of a stream, the streams of a tool runner. Any thread may close it.
    """

    _blocking: ClassVar[dict[type, type[Facade]]] = {}  # by async class
    _make: ClassVar[Callable[..., Any]]
    _is_exclusive: ClassVar[bool] = False

    def __init_subclass__(
        cls, of: type | None = None, *, made_by: Callable[..., Any] | None = None, is_exclusive: bool = False
    ) -> None:
        if of is None:  # a class of the user's
            return
        cls._make, cls._is_exclusive = staticmethod(made_by or of), is_exclusive
        cls._blocking[of] = cls
        cls.__doc__ = "\n\n".join(filter(None, [in_blocking_words(inspect.getdoc(of)), cls.__doc__]))
        if inspect.isfunction(constructor := inspect.getattr_static(of, "__init__")):
            cls.__init__ = _like(constructor, _constructor(), cls)  # type: ignore[method-assign]
        for name, member in inspect.getmembers_static(of):
            if name in _SPECIAL:
                setattr(cls, _SPECIAL[name].__name__, _SPECIAL[name])
            elif name.startswith("_") or name in HIDDEN:
                continue
            elif isinstance(member, classmethod):
                setattr(cls, name, classmethod(_like(member.__func__, _class_method(name), cls)))
            elif inspect.isfunction(member):
                setattr(cls, name, _like(member, _close() if name == "close" else _method(name), cls))
            elif inspect.isdatadescriptor(member):
                doc = in_blocking_words(inspect.getdoc(member))
                setattr(cls, name, property(functools.partial(cls._get, name=name), doc=doc))
        if hasattr(of, "__class_getitem__"):
            cls.__class_getitem__ = classmethod(GenericAlias)  # type: ignore[attr-defined]

    @classmethod
    def _around(cls, inner: Any, giver: Facade | None = None) -> Self:
        """The blocking form of `inner`, the same one as long as it exists. `giver` is the object that gave `inner`."""
        made: Self | None = getattr(inner, "_facade", lambda: None)()
        if made is None or made._inner is not inner:  # a copy has the attributes of the original
            made = cls.__new__(cls)
            if type(giver) is cls:  # `with_options` keeps the attributes of a user's class
                kept = {name: value for name, value in vars(giver).items() if not isinstance(value, Facade)}
                made.__dict__.update(kept)
            made._become(inner, giver)
        return made

    def _become(self, inner: Any, giver: Facade | None = None) -> None:
        self._inner = inner
        self._take = getattr(inner, "_take", None)
        # Reentrant: a thread that was interrupted, and so could not release it, is still not "another thread".
        self._reading: Any = getattr(giver, "_reading", None) or (threading.RLock() if self._is_exclusive else None)
        if hasattr(inner, "__dict__"):
            inner._facade = weakref.ref(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in HIDDEN:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = self._get(name)
        if isinstance(value, Facade) and not value._is_exclusive:
            self.__dict__[name] = value  # `client.messages`: found without this method from now on
        return value

    def _get(self, name: str) -> Any:
        return self._wrapped(getattr(self._inner, name))

    def __repr__(self) -> str:
        kind: Any = type(self._inner)
        if kind.__repr__ is object.__repr__:
            return super().__repr__()
        return repr(self._inner).replace(kind.__name__, type(self).__name__, 1)

    def __dir__(self) -> list[str]:
        names = (name for name in dir(self._inner) if not name.startswith("_") and name not in HIDDEN)
        return sorted({*super().__dir__(), *names})

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        result = _called(function, arguments, options)
        return self._wrapped(self._run(result) if inspect.isawaitable(result) else result)

    def _run(self, awaitable: Any) -> Any:
        """The result of an awaitable. Raises `RuntimeError` while another thread runs one of an exclusive object."""
        steps, reading = awaitable.__await__(), self._reading
        if reading is None:
            return drive(steps)
        if not reading.acquire(blocking=False):
            steps.close()
            raise RuntimeError(_IN_USE)
        try:
            return drive(steps)
        except Exception:
            raise
        except BaseException:
            self._interrupted()
            raise
        finally:
            reading.release()

    def _interrupted(self) -> None:
        """Ctrl-C came, perhaps in the middle of an event: the stream is of no more use."""
        if hasattr(self._inner, "_close"):
            self._inner._close()

    def _wrapped(self, value: Any) -> Any:
        """What the async object gave, as blocking code gets it."""
        if value is self._inner:
            return self
        if inspect.isroutine(value):  # of `with_raw_response`
            return lambda *arguments, **options: self._call(value, arguments, options)
        kind = type(self) if type(value) is type(self._inner) else _kind_of(value)
        return value if kind is None else kind._around(value, self)


_IN_USE = "another thread is reading the stream"


def _kind_of(value: Any) -> type[Facade] | None:
    for base in type(value).__mro__:
        if base in Facade._blocking:
            return Facade._blocking[base]
    if not hasattr(value, "__anext__"):
        return None
    # An iterator over texts, or pages.
    name = f"Blocking{type(value).__name__.strip('_')}"
    made = new_class(name, (Facade,), {"of": type(value), "is_exclusive": True})
    made.__module__ = __name__
    return made


def _called(function: Callable[..., T], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> T:
    given = {name: _unwrapped(value) for name, value in options.items()}
    try:
        return function(*map(_unwrapped, arguments), **given)
    except TypeError as exc:
        if exc.__traceback__ is None or exc.__traceback__.tb_next is not None:
            raise
        raise TypeError(in_blocking_words(str(exc))) from None  # of the arguments: it names the async method


def _unwrapped(value: Any) -> Any:
    if isinstance(value, tuple(Facade._blocking)):
        raise ConfigurationError(f"a blocking class cannot use an {type(value).__name__}: give a blocking object")
    return value._inner if isinstance(value, Facade) else value


# --- Methods -------------------------------------------------------------------------------------------------------


def in_blocking_words(text: Any) -> Any:
    """A text about async classes, or an annotation, as it is of the blocking ones. Other values are given back as they are."""
    if not isinstance(text, str):
        return text
    return _ASYNC_WORDS.sub(lambda found: _WORDS[found[1]] if found[1] else "a " if found[0] == "an " else "", text)


def _like(original: Any, blocking: Function, cls: type) -> Function:
    """`blocking` with all that reflection sees of `original`, in blocking words."""
    functools.update_wrapper(blocking, original)
    del blocking.__wrapped__  # type: ignore[attr-defined]  # it is async
    blocking.__annotations__ = {name: in_blocking_words(hint) for name, hint in original.__annotations__.items()}
    signature, hints = inspect.signature(original), blocking.__annotations__
    parameters = [each.replace(annotation=hints.get(name, each.empty)) for name, each in signature.parameters.items()]
    blocking.__signature__ = inspect.Signature(parameters, return_annotation=hints["return"])  # type: ignore[attr-defined]
    blocking.__doc__ = in_blocking_words(inspect.getdoc(original))
    blocking.__module__ = cls.__module__
    blocking.__qualname__ = f"{cls.__qualname__}.{original.__name__}"
    blocking.__code__ = blocking.__code__.replace(co_name=original.__name__)  # for tracebacks
    return blocking


def _constructor() -> Callable[..., None]:
    def __init__(self: Any, *arguments: Any, **options: Any) -> None:  # noqa: N807
        self._become(_called(self._make, arguments, options))

    return __init__


def _method(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        return self._call(getattr(self._inner, name), arguments, options)

    return method


def _class_method(name: str) -> Callable[..., Any]:
    def method(cls: Any, *arguments: Any, **options: Any) -> Any:
        return cls._around(_called(getattr(cls._make, name), arguments, options))

    return method


def _close() -> Callable[..., None]:
    def close(self: Any) -> None:  # from any thread, at any time
        drive(self._inner.close())

    return close


def __enter__(self: Any) -> Any:  # noqa: N807
    self._run(self._inner.__aenter__())
    return self


def __exit__(self: Any, kind: Any, error: Any, trace: Any) -> None:  # noqa: N807
    drive(self._inner.__aexit__(kind, error, trace))


def __iter__(self: Any) -> Any:  # noqa: N807
    return self._wrapped(aiter(self._inner))


def __next__(self: Any) -> Any:  # noqa: N807
    """The next item. What is here already is given out without a coroutine."""
    take, reading = self._take, self._reading
    if take is None:
        try:
            return self._wrapped(self._run(self._inner.__anext__()))
        except StopAsyncIteration:
            raise StopIteration from None
    if not reading.acquire(False):
        raise RuntimeError(_IN_USE)
    try:
        while (item := take()) is None:
            drive(self._inner._more())
        return item
    except StopAsyncIteration:
        raise StopIteration from None
    except Exception:
        raise
    except BaseException:
        self._interrupted()
        raise
    finally:
        reading.release()


_SPECIAL: Mapping[str, Callable[..., Any]] = {
    "__aenter__": __enter__,
    "__aexit__": __exit__,
    "__aiter__": __iter__,
    "__anext__": __next__,
}
