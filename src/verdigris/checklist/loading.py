"""Section 5: how what an answer needs is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Edit, Judgement, Kind, Population, Severity
from verdigris.evidence.loading import (
    Answer,
    Collection,
    Doubtful,
    Hit,
    Looped,
    Multiplied,
    Need,
    PerRow,
    Required,
    Single,
    Unsettled,
    collections,
    loops,
    needs,
    singles,
)
from verdigris.evidence.source.flow import Read, State
from verdigris.evidence.source.models.relations import Relation
from verdigris.evidence.source.statements.loops import RowQuery
from verdigris.evidence.source.statements.required import required
from verdigris.evidence.source.statements.statements import Loaded, LoaderOption
from verdigris.evidence.source.statements.strategies import loaded_by, outer_joined
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from verdigris.evidence import Evidence

SHOWN = 5  # places of one cause


class SelectinCollections(Box[Collection]):
    """5.1."""

    name = "loading/selectin-collections"
    holds = "Every collection is loaded by a query of its own"
    fails = "A collection is loaded by a join that multiplies its parents' rows, or by a query per parent"
    consequence = "Each parent comes once per child, two such collections multiply each other, and all of it is sent."

    def subjects(self, evidence: Evidence) -> Population[Collection]:
        """Name what loads collections."""
        return collections(evidence)

    def judge(self, subject: Collection, evidence: Evidence) -> Judgement:
        """Compare the strategy with the relationship's cardinality."""
        match subject:
            case Multiplied():
                return subject.finding("rows", subject.message, fix="selectinload(...) for each collection")
            case Relation():
                return self._mapped(subject)
            case LoaderOption(strategy="load"):
                promise = guaranteed("verdigris.load", "collections")
                return (
                    subject.proof(promise.reason)
                    if promise
                    else subject.doubt("nothing says how load() loads collections")
                )
            case LoaderOption(relation=None):
                return subject.doubt(f"which relationship `{subject.short}` names is not settled by the source")
            case _:
                return self._option(subject)

    def _mapped(self, relation: Relation) -> Judgement:
        if relation.many != Known(True):
            return relation.doubt(f"whether {relation.key} is a collection is not settled")
        lazy = relation.lazy.value if isinstance(relation.lazy, Known) else ""
        if lazy == "selectin":
            return relation.proof(f'{relation.key} is mapped with lazy="selectin"')
        message = f"{relation.key} is a collection and is mapped with `lazy={lazy!r}`: every query of it pays"
        fix = 'lazy="selectin"   # or "raise_on_sql", and selectinload() where it is read'
        severity = Severity.ADVICE if lazy == "subquery" else Severity.ERROR
        return relation.finding(f"mapped-{lazy}", message, fix=fix, severity=severity)

    def _option(self, option: LoaderOption) -> Judgement:
        relation = option.relation
        assert relation is not None  # noqa: S101 - the caller asked; said for the type checker
        if option.strategy == "selectinload":
            return option.proof(f"{relation.key} is loaded by selectinload")
        if relation.many != Known(True):
            return option.doubt(f"whether {relation.key} is a collection is not settled")
        fix = f"selectinload({relation.key})"
        edits = loaded_by(option, "selectinload")
        if option.strategy == "contains_eager":
            if not option.limited:
                return option.proof(f"{relation.key} comes from a join that the query writes itself")
            message = (
                f"contains_eager({relation.key}) under a LIMIT, which counts joined rows and cuts the collection short"
            )
            return option.finding("truncated", message, fix=fix)
        if option.strategy == "joinedload":
            message = (
                f"joinedload({relation.key}) repeats each {relation.key.partition('.')[0]} once per row of a collection"
            )
            return option.finding("joined", message, fix=fix, edits=edits)
        if option.strategy == "immediateload":
            message = f"immediateload({relation.key}) sends one query per parent"
            return option.finding("immediate", message, fix=fix, edits=edits)
        message = f"subqueryload({relation.key}) runs the whole query a second time; selectinload asks by primary keys"
        return option.finding("subquery", message, fix=fix, severity=Severity.ADVICE, edits=edits)


class JoinedSingle(Box[Single]):
    """5.2."""

    name = "loading/joined-single"
    holds = "A related single object comes in the same query, and no parent is lost by it"
    fails = "A related single object costs a query per parent, or its join drops parents that have none"
    consequence = "An inner join over a foreign key that may be null leaves out rows without a word."

    def subjects(self, evidence: Evidence) -> Population[Single]:
        """Name what loads single objects."""
        return singles(evidence)

    def judge(self, subject: Single, evidence: Evidence) -> Judgement:
        """Look for queries per parent and rows lost first; a second query for all parents is advice."""
        if isinstance(subject, LoaderOption):
            promise = guaranteed("verdigris.load", "singles")
            return (
                subject.proof(promise.reason)
                if promise
                else subject.doubt("nothing says how load() loads single objects")
            )
        relation = subject.relation
        each = [option for option in subject.options if option.strategy == "immediateload"]
        if each or relation.lazy == Known("immediate"):
            place = each[0].place if each else relation.place
            message = f"{relation.key} is loaded immediately: one query per parent"
            edits = _joined(each) if relation.lazy != Known("immediate") else ()
            return subject.finding("immediate", message, place=place, fix=f"joinedload({relation.key})", edits=edits)
        dropping = self._drops(subject)
        if dropping is not None:
            return dropping
        second = [option for option in subject.options if option.strategy in {"selectinload", "subqueryload"}]
        if second:
            return subject.finding(
                "second-query",
                f"{relation.key} is one object and is loaded by {second[0].strategy}: a round trip that a join saves",
                place=second[0].place,
                fix=f"joinedload({relation.key})",
                severity=Severity.ADVICE,
                related=tuple((option.place, "and here") for option in second[1:SHOWN]),
                edits=_joined(second),
            )
        how = f"{subject.options[0].strategy}" if subject.options else "its own mapping"
        return subject.proof(
            f"{relation.key} comes with its parent, by {how}",
            place=subject.options[0].place if subject.options else None,
        )

    def _drops(self, subject: Loaded) -> Judgement | None:
        relation = subject.relation
        if relation.nullable != Known(True):
            return None
        declared = relation.declared
        mapped = (
            relation.lazy == Known("joined") and declared is not None and declared.option("innerjoin") == Known(True)
        )
        every = (each for each in subject.options if each.strategy == "joinedload" and each.innerjoin == Known(True))
        asked = [(each, required(each.call, relation.columns, relation.name)) for each in every]
        inner = [each for each, told in asked if told is False]
        unsure = next((each for each, told in asked if told is None), None)
        if not inner and not mapped and unsure is not None:
            told = (
                f"whether {unsure.short} with innerjoin=True leaves out rows that its statement asks for is not settled"
            )
            return subject.doubt(
                told, place=unsure.place, settle="write the statement and its condition as one expression"
            )
        if not inner and not mapped:
            return None
        columns = " and ".join(relation.columns)
        return subject.finding(
            "inner-nullable",
            f"{relation.key} is joined with innerjoin=True, yet {columns} may be null: such rows are left out",
            place=inner[0].place if inner else relation.place,
            fix=f"joinedload({relation.key})",
            edits=tuple(edit for option in inner for edit in outer_joined(option)) if not mapped else (),
        )


def _joined(options: list[LoaderOption]) -> tuple[Edit, ...]:
    return tuple(edit for option in options for edit in loaded_by(option, "joinedload"))


_SILENT = "No error says so: the answer is empty where the database has rows."
_SOMETIMES = "A row whose foreign key is NULL reads as None, without a query; the first other one is a MissingGreenlet."
_REFUSED = "Such a relationship gives a query, or an error, where the code expects what it holds."


class AllLoaded(Box[Required]):
    """5.3."""

    name = "loading/all-loaded"
    holds = "Whatever an answer or the code reads of an object was loaded by its query"
    fails = "Something is read that the query did not load"
    consequence = (
        "Async code cannot load it behind the attribute: MissingGreenlet, a 500 far from the query that forgot it."
    )

    def subjects(self, evidence: Evidence) -> Population[Required]:
        """Name each relationship that a route's answer or a function reads; nothing where nothing is async."""
        return needs(evidence) if evidence.source.uses_async else Population()

    def judge(self, subject: Required, evidence: Evidence) -> Judgement:
        """Believe a run that missed something first, then what was followed through the source."""
        match subject:
            case Hit():
                return self._seen(subject, subject)
            case Unsettled(ran=ran, reason=reason):
                if ran:
                    return subject.proof(f"ran {ran} times and missed nothing", kind=Kind.RECORDING)
                return subject.doubt(reason)
            case Need(hits=(first, *_)):
                return self._seen(subject, first)
            case Need():
                return self._read(subject)

    def _seen(self, subject: Need | Hit, hit: Hit) -> Judgement:
        where = f" in {hit.route}" if hit.route else f" at {hit.touched}" if hit.touched else ""
        query = f"; the query at {hit.query} should have loaded it" if hit.query else ""
        message = f"{hit.attribute} was read{where} {hit.count} times and was not loaded: {hit.raises}{query}"
        fix = (
            subject.read.option
            if isinstance(subject, Need)
            else f"selectinload({hit.attribute})   # joinedload for one object"
        )
        return subject.finding("seen", message, place=hit.place, fix=f".options({fix})", kind=Kind.RECORDING)

    def _read(self, need: Need) -> Judgement:
        read = need.read
        match read.state:
            case State.LOADED:
                return need.proof(read.reason)
            case State.DOUBT:
                if need.ran:
                    return need.proof(f"ran {need.ran} times and missed nothing", kind=Kind.RECORDING)
                return need.doubt(f"{_reader(read)}; {read.reason}")
            case State.EMPTY:
                message = f"{_reader(read)}, which no option loads: lazy='noload' makes it read as empty"
                return self._finding(need, "noload", message, f".options({read.option})", _SILENT)
            case State.UNLOADABLE:
                message = f"{_reader(read)} as a whole, and {read.reason}"
                return self._finding(
                    need,
                    "unloadable",
                    message,
                    f"select({read.relation.key.partition('.')[0]}...) with its own statement",
                    _REFUSED,
                )
        if read.made:
            message = f"{_reader(read)} of an object that was made and flushed without it"
            fix = f'await session.refresh(obj, ["{read.relation.name}"])   # or give it to the constructor'
            return self._finding(need, "new-object", message, fix)
        message = f"{_reader(read)}, which the query{f' at {read.origin}' if read.origin else ''} does not load"
        silent = read.relation.nullable == Known(True) and read.relation.lazy != Known("raise")
        return self._finding(need, "missing", message, f".options({read.option})", _SOMETIMES if silent else None)

    def _finding(self, need: Need, variant: str, message: str, fix: str, consequence: str | None = None) -> Judgement:
        read = need.read
        related = [(read.place, "read here")]
        if read.field is not None:
            related.append((read.field.place, f"{read.field.label} asks for it"))
        if read.via is not None and read.origin is not None:
            related.append((read.origin, "the statement"))
        return need.finding(variant, message, fix=fix, related=tuple(related), consequence=consequence)


class NoNPlusOne(Box[Looped]):
    """5.4."""

    name = "loading/no-n-plus-one"
    holds = "No query runs once for each row"
    fails = "A query runs once for each row"
    consequence = "A page of a hundred rows takes a hundred more round trips, and the number grows with the data."

    def subjects(self, evidence: Evidence) -> Population[Looped]:
        """Name the loops that query, what a run repeated, and the routes; nothing where nothing is async."""
        return loops(evidence) if evidence.source.uses_async else Population()

    def judge(self, subject: Looped, evidence: Evidence) -> Judgement:
        """Tell a question asked row by row from a unit of work for each, which may be meant."""
        match subject:
            case PerRow():
                return subject.finding(subject.variant, subject.message, fix=subject.fix)
            case Doubtful():
                return self._doubtful(subject)
            case RowQuery():
                return self._loop(subject)
            case Answer(ran=ran) if ran:
                return subject.proof(f"ran {ran} times and repeated no query for each row", kind=Kind.RECORDING)
            case Answer():
                return subject.proof("no loop over rows in what it calls awaits a query")

    def _doubtful(self, subject: Doubtful) -> Judgement:
        if subject.ran and subject.most == 1:
            message = f"`{subject.loop.call}` ran {subject.ran} times and in no request or task twice with other values"
            return subject.proof(message, kind=Kind.RECORDING)
        told = f"`{subject.loop.call}` is awaited in a loop over `{subject.loop.rows}`; {subject.why}"
        seen = f"; a run sent it with {subject.most} different values in one request or task" if subject.ran else ""
        return subject.doubt(told + seen)

    def _loop(self, loop: RowQuery) -> Judgement:
        together = ", all at once" if loop.gathered else ""
        each = "each of" if loop.different is None else f"each different `{loop.different}` of"
        message = f"`{loop.call}` asks the database once for {each} `{loop.rows}`{together}"
        related = [(loop.loop, "the loop")]
        if loop.query != loop.place:
            related.append((loop.query, "the query"))
        if loop.works:
            message = f"`{loop.call}` queries and does more for {each} `{loop.rows}`{together}: a unit of work a row"
        return loop.finding(
            "work" if loop.works else "loop",
            message,
            fix="await session.scalars(select(Model).where(Model.id.in_(ids)))   # before the loop; then a dict by id",
            severity=Severity.ADVICE if loop.works else Severity.ERROR,
            related=tuple(related),
        )


def _reader(read: Read) -> str:
    if read.field is not None:
        return f"`{read.owner}` makes {read.field.schema} of it: {read.field.label} reads {read.relation.key}"
    reached = f", reached from {read.start}" if read.start is not None else ""
    return f"{read.relation.key} is read at {read.place}{reached}"
