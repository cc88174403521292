"""Which driver a URL names: through settings, environment files, URL builders and the usual rewriting.

What counts is the part before `://`, which is often known where the rest is secret. An expression has one or more
*texts*: the beginning of each URL it may be. A text that came out of rewriting something unknown is not certain.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from verdigris.evidence.source.engine.drivers import is_async
from verdigris.evidence.source.reading.arguments import Argument, Frame, is_generator, keyword, short
from verdigris.evidence.source.reading.attributes import self_assignments
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.values import Known, Place, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.modules import Binding

DEPTH = 20
_SCHEME = re.compile(r"^([A-Za-z][\w+.-]*)://")
#: Calls and attributes that leave the scheme as it is.
_SAME = frozenset(
    {
        "MultiHostUrl",
        "PostgresDsn",
        "SecretStr",
        "URL",
        "cast",
        "get_secret_value",
        "geturl",
        "human_repr",
        "make_url",
        "parse_obj_as",
        "render_as_string",
        "str",
        "strip",
        "unicode_string",
        "update_query_dict",
        "update_query_string",
        "urlparse",
        "urlsplit",
        "urlunparse",
        "urlunsplit",
        "validate_python",
    }
)
_BUILDERS = {"create": "drivername", "build": "scheme", "set": "drivername", "_replace": "scheme"}


@dataclass(frozen=True, slots=True)
class Text:
    """The beginning of a URL; `certain` is False if something unknown was rewritten to get it."""

    text: str = ""
    whole: bool = True
    certain: bool = True
    by: str | None = None
    place: Place | None = None
    reason: str = ""  # why it is not known, where it is not

    @property
    def scheme(self) -> str | None:
        """The dialect and driver, `postgresql+asyncpg`."""
        found = _SCHEME.match(self.text)
        return found[1].lower() if found is not None else None


class Urls:
    """URLs of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index and its settings files."""
        self.source = source
        self.evaluator = source.evaluator
        self._bound: dict[tuple[int, str], list[Text]] = {}
        self._drivers: dict[tuple[int, int], tuple[Argument, list[Text]]] = {}  # arguments are kept: ids stay theirs

    def drivers(self, argument: Argument) -> list[Text]:
        """Return what the URL may be; a text without a scheme is one that nobody can tell."""
        key = (id(argument.node), id(argument.frame))
        if key not in self._drivers:
            self._drivers[key] = (argument, self._told(argument))
        return self._drivers[key][1]

    def _told(self, argument: Argument) -> list[Text]:
        found = []
        for text in self.texts(argument):
            known = text.scheme is not None and (text.certain or is_async(text.scheme) is True)
            found.append(text if known else _unknown(text.reason or f"`{short(argument.node)}` is not settled"))
        return list(dict.fromkeys(found))

    def texts(self, argument: Argument, depth: int = 0) -> list[Text]:  # noqa: C901, PLR0911, PLR0912 - one case a node
        """Return the beginnings of all URLs that an expression may be."""
        node = argument.node
        if depth > DEPTH:
            return [_unknown(f"`{short(node)}` is defined in a circle")]
        match node:
            case ast.Constant(value=str(text)):
                return [Text(text, place=argument.scope.module.place(node))]
            case ast.Constant():
                return []  # None and the like are no URL
            case ast.JoinedStr(values=parts):
                return self._joined(parts, argument, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([left, right], argument, depth)
            case ast.BinOp(left=left, op=ast.Mod()):
                return [_cut(text, "%") for text in self.texts(replace(argument, node=left), depth + 1)]
            case ast.IfExp(test=test, body=body, orelse=orelse):
                if ast.dump(test) == ast.dump(orelse):  # `f(url) if url else url`: the other arm is no URL
                    return self.texts(replace(argument, node=body), depth + 1)
                return [text for arm in (body, orelse) for text in self.texts(replace(argument, node=arm), depth + 1)]
            case ast.BoolOp(values=values):
                return self._either(values, argument, depth)
            case ast.Await(value=inner) | ast.NamedExpr(value=inner) | ast.FormattedValue(value=inner):
                return self.texts(replace(argument, node=inner), depth + 1)
            case ast.Name() | ast.Attribute():
                return self._named(node, argument, depth)
            case ast.Call():
                return self._call(node, argument, depth)
            case _:
                return self._evaluated(argument)

    def _evaluated(self, argument: Argument) -> list[Text]:
        """Fall back to the value of an expression, or to the variable of the environment that it comes from."""
        worth = self.evaluator.value(argument)
        if isinstance(worth, Known):
            return [Text(worth.value, by=worth.by)] if isinstance(worth.value, str) else []
        if isinstance(worth, Unknown):
            told = self.environment(worth.variable, argument.scope.module.path) if worth.variable is not None else []
            return told or [_unknown(worth.reason)]
        return [_unknown(f"`{short(argument.node)}` is not settled")]

    def _either(self, arms: list[ast.expr], argument: Argument, depth: int) -> list[Text]:
        found: list[Text] = []
        for arm in arms:
            texts = self.texts(replace(argument, node=arm), depth + 1)
            if any(text.scheme for text in texts) or arm is arms[-1]:
                return [*found, *texts] if texts else found
        return found

    def _joined(self, parts: Iterable[ast.expr], argument: Argument, depth: int) -> list[Text]:
        """Put the parts together as far as they are known; nothing behind `://` is needed."""
        found = [Text()]
        for part in parts:
            if all(not text.whole or text.scheme for text in found):
                break
            more = self.texts(replace(argument, node=part), depth + 1)
            found = [_append(text, other) for text in found for other in more] or found
        return [replace(text, whole=False) for text in found]

    def _named(self, node: ast.expr, argument: Argument, depth: int) -> list[Text]:
        meaning = self.source.names.resolve(node, argument.scope)
        if isinstance(meaning, Assigned):
            return self._assigned(meaning, argument, depth)
        if isinstance(node, ast.Attribute):
            owner = self.source.types.of(node.value, argument.scope)
            if isinstance(owner, Scope):
                return self.field(owner, node.attr, argument.frame, depth + 1)
        return [_unknown(f"`{short(node)}` is not settled by the source")]

    def _assigned(self, meaning: Assigned, argument: Argument, depth: int) -> list[Text]:
        """Run the assignments to a name in their order: each may rewrite what was there before."""
        mark = (id(meaning.scope), meaning.name)
        if mark in self._bound:
            return self._bound[mark]
        frame = argument.frame
        while frame is not None and frame.function is not meaning.scope.function:
            frame = frame.outer
        found: list[Text] = []
        for binding in meaning.bindings:
            if binding.kind == "parameter":
                found = self._parameter(meaning, frame, depth)
            elif binding.kind not in {"value", "annotation"}:
                return [_unknown(f"`{meaning.name}` is not assigned as one value")]
            elif binding.value is not None and not _after(binding, meaning, argument):
                self._bound[mark] = found
                try:
                    scope = binding.where or meaning.scope
                    more = self.texts(Argument(binding.value, scope, frame), depth + 1)
                finally:
                    del self._bound[mark]
                replaces = _mentions(binding.value, meaning.name) or _is_straight(binding, meaning.scope)
                found = more if replaces else [*found, *more]
        return found

    def _parameter(self, meaning: Assigned, frame: Frame | None, depth: int) -> list[Text]:
        if frame is not None and meaning.name in frame.arguments:
            return self.texts(frame.arguments[meaning.name], depth + 1)
        default = meaning.scope.default(meaning.name)
        own = meaning.scope.function
        frames = self.source.calls.frames(own) if own is not None and frame is None else []
        told = [text for outer in frames if (text := outer.arguments.get(meaning.name)) is not None]
        if frames and len(told) == len(frames):
            return [text for given in told for text in self.texts(given, depth + 1)]
        if default is not None and frame is not None:
            return self.texts(Argument(default, meaning.scope.parent or meaning.scope), depth + 1)
        return [_unknown(f"`{meaning.name}` is a parameter of {meaning.scope.name}()")]

    def field(self, owner: Scope, name: str, frame: Frame | None = None, depth: int = 0) -> list[Text]:
        """Return what a settings class's field, constant or property may be."""
        for base in self.source.names.lineage(owner):
            if not isinstance(base, Scope):
                continue
            member = base.member(name)
            if member is not None and member.is_function:
                return self._returned(Frame(member, {}), depth + 1)
            found = self._validated(base, name, depth)
            if not found and name in base.bindings:
                found = self._assigned(Assigned(base, name), Argument(ast.Name(name), base, frame), depth + 1)
            for value, _, scope in self_assignments(base, name):
                if value is not None:
                    found = [*found, *self.texts(Argument(value, scope, frame), depth + 1)]
            by = f"{base.name}.{name}"
            if found and not all(text.scheme is None and text.certain for text in found):
                return [replace(text, by=text.by or by) for text in found if text.scheme or not text.certain]
            told = [
                text
                for variable in self._variables(base, name)
                for text in self.environment(variable, base.module.path)
            ]
            if told or found or name in base.bindings:
                return told or found or [_unknown(f"{by} comes from the environment")]
        return [_unknown(f"{owner.name}.{name} has no value in the source")]

    def _validated(self, owner: Scope, name: str, depth: int) -> list[Text]:
        """Return what a validator makes of a field: `assemble_db_url` in many templates."""
        found: list[Text] = []
        for method in owner.scopes:
            for decorator in method.decorators:
                if not (isinstance(decorator, ast.Call) and "validator" in ast.unparse(decorator.func)):
                    continue
                if any(isinstance(arg, ast.Constant) and arg.value == name for arg in decorator.args):
                    found += self._returned(Frame(method, {}), depth + 1)
        return [text for text in found if text.scheme]

    def _variables(self, owner: Scope, name: str) -> list[str]:
        """Name the environment variables that pydantic would read a field from."""
        prefix = ""
        for scope in (owner, owner.member("Config")):
            for binding in [] if scope is None else scope.bindings.get("env_prefix", []):
                if isinstance(binding.value, ast.Constant):
                    prefix = str(binding.value.value)
        for binding in owner.bindings.get("model_config", []):
            given = keyword(binding.value, "env_prefix") if isinstance(binding.value, ast.Call) else None
            if isinstance(given, ast.Constant):
                prefix = str(given.value)
        alias = None
        for binding in owner.bindings.get(name, []):
            if isinstance(binding.value, ast.Call):
                alias = (
                    keyword(binding.value, "validation_alias")
                    or keyword(binding.value, "alias")
                    or keyword(binding.value, "env")
                )
        return [str(alias.value)] if isinstance(alias, ast.Constant) else [f"{prefix}{name}"]

    def _returned(self, frame: Frame, depth: int) -> list[Text]:
        function = frame.function
        if depth > DEPTH or is_generator(function):
            return [_unknown(f"what {function.name}() gives is not settled")]
        if isinstance(function.node, ast.Lambda):
            return self.texts(Argument(function.node.body, function, frame), depth + 1)
        returns = [node.value for node in function.nodes() if isinstance(node, ast.Return) and node.value is not None]
        return [text for value in returns for text in self.texts(Argument(value, function, frame), depth + 1)]

    def _call(self, node: ast.Call, argument: Argument, depth: int) -> list[Text]:
        meaning = self.source.types.callee(node, argument.scope)
        if isinstance(meaning, Scope) and meaning.is_function:
            return self._returned(self.evaluator.frame(node, argument.scope, meaning, argument.frame), depth + 1)
        leaf = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if isinstance(meaning, External):
            leaf = meaning.leaf
        if leaf in _BUILDERS:
            return self._built(node, leaf, argument, depth)
        if leaf == "sub" and len(node.args) >= 3:
            return self._substituted(node, argument, depth)
        if leaf in _SAME and (isinstance(node.func, ast.Attribute) and not isinstance(meaning, External)):
            return self.texts(replace(argument, node=node.func.value), depth + 1)
        if leaf in _SAME and node.args:
            return self.texts(replace(argument, node=node.args[-1]), depth + 1)
        if isinstance(node.func, ast.Attribute) and leaf == "replace" and len(node.args) >= 2:
            return self._replaced(node, node.func.value, argument, depth)
        if isinstance(node.func, ast.Attribute) and leaf == "format":
            return [_cut(text, "{") for text in self.texts(replace(argument, node=node.func.value), depth + 1)]
        return self._from_outside(node, argument, depth)

    def _from_outside(self, node: ast.Call, argument: Argument, depth: int) -> list[Text]:
        """Read `os.getenv(name, default)` and the like: environment files first, then the default."""
        worth = self.evaluator.value(argument)
        if (
            isinstance(worth, Known)
            and worth.by is not None
            and worth.by.startswith("default of the environment variable")
        ):
            told = self.environment(worth.by.rpartition(" ")[2], argument.scope.module.path)
            return told or ([Text(worth.value, by=worth.by)] if isinstance(worth.value, str) else [])
        if isinstance(worth, Unknown) and worth.variable is None:
            for default in (keyword(node, "default"), node.args[1] if len(node.args) > 1 else None):
                if default is not None and "env" in ast.unparse(node.func).lower():
                    return self.texts(replace(argument, node=default), depth + 1)
        return self._evaluated(argument)

    def _built(self, node: ast.Call, leaf: str, argument: Argument, depth: int) -> list[Text]:
        """Read `URL.create(drivername)`, `PostgresDsn.build(scheme=…)`, `url.set(drivername=…)`."""
        given = keyword(node, "drivername") or keyword(node, "scheme")
        if given is None and leaf == "create" and node.args:
            given = node.args[0]
        if given is None:
            base = node.func.value if isinstance(node.func, ast.Attribute) else None
            known = leaf in {"set", "_replace"} and base is not None
            return (
                self.texts(replace(argument, node=base), depth + 1)
                if known and base
                else [_unknown(f"`{short(node)}` is computed")]
            )
        worth = self.evaluator.value(replace(argument, node=given))
        if isinstance(worth, Known) and isinstance(worth.value, str):
            return [Text(f"{worth.value}://", whole=False, by=worth.by, place=argument.scope.module.place(node))]
        return [_unknown(worth.reason if isinstance(worth, Unknown) else f"`{short(given)}` is computed")]

    def _replaced(self, node: ast.Call, base: ast.expr, argument: Argument, depth: int) -> list[Text]:
        old, new = (self.evaluator.value(replace(argument, node=arg)) for arg in node.args[:2])
        texts = self.texts(replace(argument, node=base), depth + 1)
        if not (isinstance(old, Known) and isinstance(new, Known)):
            return [_unknown(f"`{short(node)}` is computed")]
        before, after = str(old.value), str(new.value)
        by = f"`.replace({before!r}, {after!r})`"
        return [each for text in texts for each in _rewritten(text, lambda url: url.replace(before, after), after, by)]

    def _substituted(self, node: ast.Call, argument: Argument, depth: int) -> list[Text]:
        pattern, new = (self.evaluator.value(replace(argument, node=arg)) for arg in node.args[:2])
        texts = self.texts(replace(argument, node=node.args[2]), depth + 1)
        if not (isinstance(pattern, Known) and isinstance(new, Known)):
            return [_unknown(f"`{short(node)}` is computed")]
        before, after = str(pattern.value), str(new.value)
        by = f"`re.sub({before!r}, {after!r}, …)`"
        try:
            return [
                each for text in texts for each in _rewritten(text, lambda url: re.sub(before, after, url), after, by)
            ]
        except (re.error, IndexError):
            return [_unknown(f"{by} is computed")]

    def environment(self, variable: str, near: str) -> list[Text]:
        """Return what environment and compose files give a variable; those nearest to the module that reads it win."""
        pattern = re.compile(
            rf"^\s*(?:export\s+|-\s*[\"']?)?({re.escape(variable)})\s*[=:]\s*[\"']?([^\s\"'#]+)",
            re.IGNORECASE | re.MULTILINE,
        )
        told: dict[int, dict[str, Text]] = {}
        for path, content in self.source.files.settings.items():
            for match in pattern.finditer(content) if _is_environment(path) else ():
                line = content.count("\n", 0, match.start(2)) + 1
                text = Text(match[2], by=f"{match[1]} in {path}", place=Place(path, line, line))
                if text.scheme is not None:
                    told.setdefault(_shared(path, near), {}).setdefault(text.scheme, text)
        return list(told[max(told)].values()) if told else []


def _unknown(reason: str) -> Text:
    return Text(whole=False, reason=reason)


def _cut(text: Text, mark: str) -> Text:
    head = text.text.partition(mark)[0]
    return replace(text, text=head, whole=text.whole and head == text.text)


def _append(text: Text, other: Text) -> Text:
    if not text.whole or text.scheme:
        return text
    return replace(
        other,
        text=text.text + other.text,
        certain=text.certain and other.certain,
        by=text.by or other.by,
        place=text.place or other.place,
    )


def _rewritten(text: Text, change: Callable[[str], str], new: str, by: str) -> list[Text]:
    """Apply a substitution; what it makes of an unknown text is the new beginning, if it has one."""
    if text.scheme is not None:
        changed = change(text.text)
        if changed != text.text:
            return [replace(text, text=changed, by=(text.by if text.certain else None) or by)]
        if text.certain:
            return [text]
    start = new if "://" in new else f"{new}://"
    if _SCHEME.match(start) is None or is_async(start.partition("://")[0]) is None:
        return [text]
    made = Text(start, whole=False, certain=False, by=f"{by} makes it so", reason=text.reason)
    return [made] if text.scheme is None else [text, made]  # one step for each dialect


def _after(binding: Binding, meaning: Assigned, argument: Argument) -> bool:
    """Tell whether an assignment stands behind the use in the same function."""
    if not meaning.scope.is_function or argument.scope is not meaning.scope:
        return False
    return getattr(binding.node, "lineno", 0) > getattr(argument.node, "lineno", 1_000_000)


def _is_straight(binding: Binding, scope: Scope) -> bool:
    """Tell whether an assignment is made whatever happens: it stands directly in its scope's body."""
    return not isinstance(scope.node, ast.Lambda) and binding.where is None and binding.node in scope.node.body


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


def _shared(path: str, near: str) -> int:
    """Count the folders that two files have in common."""
    folders = zip(path.split("/")[:-1], near.split("/")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], folders))


def _is_environment(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(".env") or name.endswith(".env") or "compose" in name
