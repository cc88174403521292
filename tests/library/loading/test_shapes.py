"""Section 5: the shapes of schemas and mappings that `load` follows, each against a real server."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar

import pytest
from pydantic import (
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    computed_field,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Table, inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    attribute_keyed_dict,
    column_property,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from verdigris import load
from verdigris.errors import ConfigurationError
from verdigris.loading import plan
from verdigris.models import Guarded
from verdigris.performance import instrument


class Base(Guarded, DeclarativeBase):
    pass


tagged = Table(
    "tagged",
    Base.metadata,
    Column("book_id", ForeignKey("book.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Country(Base):
    __tablename__ = "country"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    country_id: Mapped[int] = mapped_column(ForeignKey("country.id"))
    country: Mapped[Country] = relationship()
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.id")
    profile: Mapped[Profile | None] = relationship(back_populates="author")

    @property
    def origin(self) -> str:
        return f"{self.name} of {self.country.name}"

    def titles(self) -> list[str]:
        return [book.title for book in self.books]


class Profile(Base):
    __tablename__ = "profile"

    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"), primary_key=True)
    text: Mapped[str]
    author: Mapped[Author] = relationship(back_populates="profile")


class Keyword(Base):
    __tablename__ = "tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]
    language_id: Mapped[int] = mapped_column(ForeignKey("country.id"))
    language: Mapped[Country] = relationship()


class Edition(Base):
    """Its key has two columns, and so has what refers to it."""

    __tablename__ = "edition"

    book_id: Mapped[int] = mapped_column(ForeignKey("book.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    prints: Mapped[list[Print]] = relationship(back_populates="edition", order_by="Print.id")
    book: Mapped[Book] = relationship(back_populates="editions")


class Print(Base):
    __tablename__ = "print"
    __table_args__ = (ForeignKeyConstraint(["book_id", "number"], ["edition.book_id", "edition.number"]),)

    id: Mapped[int] = mapped_column(primary_key=True)
    copies: Mapped[int]
    book_id: Mapped[int]
    number: Mapped[int]
    edition: Mapped[Edition] = relationship(back_populates="prints")

    @property
    def label(self) -> str:
        return f"{self.edition.book.title}, edition {self.number}: {self.copies}"


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    blurb: Mapped[str] = mapped_column(deferred=True, default="a blurb")
    pages: Mapped[int] = mapped_column(default=100)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    sheets: Mapped[int] = column_property(pages / 2)
    author: Mapped[Author] = relationship(back_populates="books")
    tags: Mapped[list[Keyword]] = relationship(secondary=tagged, order_by=Keyword.id)
    tags_by_word: Mapped[dict[str, Keyword]] = relationship(
        secondary=tagged, collection_class=attribute_keyed_dict("word"), viewonly=True
    )
    editions: Mapped[list[Edition]] = relationship(back_populates="book", order_by=Edition.number)
    media: Mapped[list[Medium]] = relationship(order_by="Medium.id")
    languages: AssociationProxy[list[Country]] = association_proxy("tags", "language")

    @property
    def printed(self) -> int:
        return sum(edition_copies(edition) for edition in self.editions)

    @property
    def labels(self) -> list[str]:
        return [printing.label for edition in self.editions for printing in edition.prints]

    @property
    def by(self) -> str:
        return self.author.origin

    @property
    def siblings(self) -> list[str]:
        return self.author.titles()

    @hybrid_property
    def is_printed(self) -> bool:
        return bool(self.editions)


def edition_copies(edition):
    return sum(printing.copies for printing in edition.prints)


class Medium(Base):
    __tablename__ = "medium"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "medium"}  # noqa: RUF012 - SQLAlchemy's shape

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    book_id: Mapped[int] = mapped_column(ForeignKey("book.id"))


class Audio(Medium):
    __tablename__ = "audio"
    __mapper_args__ = {"polymorphic_identity": "audio"}  # noqa: RUF012 - SQLAlchemy's shape

    id: Mapped[int] = mapped_column(ForeignKey("medium.id"), primary_key=True)
    seconds: Mapped[int]
    reader_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    reader: Mapped[Author] = relationship()


class Film(Medium):
    __mapper_args__ = {"polymorphic_identity": "film"}  # noqa: RUF012 - SQLAlchemy's shape

    scenes: Mapped[list[Scene]] = relationship(order_by="Scene.id")


class Scene(Base):
    __tablename__ = "scene"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    film_id: Mapped[int] = mapped_column(ForeignKey("medium.id"))


class Point(MappedAsDataclass, Base):
    __tablename__ = "point"

    id: Mapped[int] = mapped_column(primary_key=True)
    country_id: Mapped[int] = mapped_column(ForeignKey("country.id"), default=None)
    country: Mapped[Country] = relationship(default=None)


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class CountryOut(Out):
    name: str


class AuthorOut(Out):
    name: str
    country: CountryOut


class TagOut(Out):
    word: str
    language: CountryOut


class SceneOut(Out):
    name: str


class AudioOut(Out):
    kind: Literal["audio"]
    seconds: int
    reader: AuthorOut


class FilmOut(Out):
    kind: Literal["film"]
    scenes: list[SceneOut]


@pytest.fixture
async def maker(database_url):
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    maker = async_sessionmaker(engine, expire_on_commit=False)
    async with maker.begin() as session:
        fiji = Country(id=1, name="Fiji")
        ada = Author(id=1, name="Ada", country=fiji, profile=Profile(text="born"))
        eve = Author(id=2, name="Eve", country=fiji)
        session.add_all([fiji, ada, eve, Point(1, country=fiji)])
        for number in (1, 2):
            session.add(
                Book(
                    id=number,
                    title=f"Book {number}",
                    author=ada,
                    tags=[Keyword(word=f"tag {number}", language=fiji)],
                    editions=[
                        Edition(number=1, prints=[Print(copies=10 * number), Print(copies=5)]),
                        Edition(number=2, prints=[]),
                    ],
                    media=[Audio(seconds=60, reader=eve), Film(scenes=[Scene(name="start")])],
                )
            )
    maker.queries = instrument(engine)
    maker.queries.clear()
    yield maker
    await engine.dispose()


async def shown(maker, schema, *, entity=Book, **options):
    """The first entity, loaded by the plan and nothing else, as the schema shows it."""
    async with maker() as session:
        statement = select(entity).order_by(*inspect(entity).primary_key).limit(1)
        found = await session.scalar(statement.options(load(entity, schema, **options)))
    return schema.model_validate(found).model_dump(by_alias=True)


def count(maker):
    return sum(query.count for query in maker.queries if "pg_catalog" not in query.fingerprint)


def steps(entity, schema, **options):
    return [line.split("  (")[0].rstrip() for line in plan(entity, schema, **options).lines()]


# -- what names lead to ------------------------------------------------------------------------------------------------


async def test_a_model_at_the_end_of_an_alias_path_brings_its_own_relationships(maker):
    class PrintOut(Out):
        copies: int

    class EditionOut(Out):
        prints: list[PrintOut]

    class Homeland(Out):
        title: str
        tags: list[TagOut]

    class Schema(Out):
        writer: AuthorOut = Field(validation_alias=AliasPath("author"))
        first_edition: EditionOut = Field(validation_alias=AliasPath("editions", 0))
        home: Homeland = Field(validation_alias=AliasPath("author", "books", 0))

    assert await shown(maker, Schema) == {
        "writer": {"name": "Ada", "country": {"name": "Fiji"}},
        "first_edition": {"prints": [{"copies": 10}, {"copies": 5}]},
        "home": {"title": "Book 1", "tags": [{"word": "tag 1", "language": {"name": "Fiji"}}]},
    }


async def test_generated_aliases_are_followed(maker):
    class CamelTag(Out):
        model_config = ConfigDict(alias_generator=to_camel)
        word: str

    class Camel(Out):
        model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)
        tags_by_word: dict[str, CamelTag]

    assert await shown(maker, Camel) == {"tagsByWord": {"tag 1": {"word": "tag 1"}}}


async def test_a_proxy_to_objects_brings_what_their_model_reads(maker):
    class Schema(Out):
        languages: list[CountryOut]

    assert await shown(maker, Schema) == {"languages": [{"name": "Fiji"}]}


async def test_column_properties_and_dataclass_entities_are_plain(maker):
    class Sheets(Out):
        sheets: int

    class PointOut(Out):
        country: CountryOut

    assert await shown(maker, Sheets) == {"sheets": 50}
    assert await shown(maker, PointOut, entity=Point) == {"country": {"name": "Fiji"}}


async def test_one_to_one_is_joined_and_may_be_missing(maker):
    class ProfileOut(Out):
        text: str

    class Schema(Out):
        name: str
        profile: ProfileOut | None

    assert steps(Author, Schema) == ["Author.profile: joined"]
    assert await shown(maker, Schema, entity=Author) == {"name": "Ada", "profile": {"text": "born"}}


async def test_keys_of_two_columns_are_followed_both_ways(maker):
    class BookOut(Out):
        title: str

    class EditionOut(Out):
        book: BookOut
        number: int

    class PrintOut(Out):
        edition: EditionOut

    class PrintCopies(Out):
        copies: int

    class EditionPrints(Out):
        prints: list[PrintCopies]

    class Schema(Out):
        editions: list[EditionPrints]

    assert steps(Print, PrintOut) == ["Print.edition: joined, inner", "  Edition.book: joined, inner"]
    assert await shown(maker, PrintOut, entity=Print) == {"edition": {"book": {"title": "Book 1"}, "number": 1}}
    assert await shown(maker, Schema) == {"editions": [{"prints": [{"copies": 10}, {"copies": 5}]}, {"prints": []}]}


# -- code that reads on a field's behalf -------------------------------------------------------------------------------


async def test_a_property_that_reads_a_property_of_another_entity(maker):
    class Schema(Out):
        by: str

    assert await shown(maker, Schema) == {"by": "Ada of Fiji"}


async def test_a_property_that_reads_back_and_forth_through_others(maker):
    class Schema(Out):
        labels: list[str]

    assert await shown(maker, Schema) == {"labels": ["Book 1, edition 1: 10", "Book 1, edition 1: 5"]}


async def test_a_property_that_calls_a_method_of_another_entity(maker):
    class Schema(Out):
        siblings: list[str]

    assert await shown(maker, Schema) == {"siblings": ["Book 1", "Book 2"]}


async def test_a_property_that_calls_a_function_beside_it(maker):
    class Schema(Out):
        printed: int
        is_printed: bool

    assert await shown(maker, Schema) == {"printed": 15, "is_printed": True}


async def test_a_field_validator_that_reads_further(maker):
    class Schema(Out):
        tags: list[str]

        @field_validator("tags", mode="before")
        @classmethod
        def languages(cls, tags: Any) -> Any:
            return [f"{tag.word} ({tag.language.name})" for tag in tags]

    assert await shown(maker, Schema) == {"tags": ["tag 1 (Fiji)"]}


async def test_an_annotated_validator_that_reads_further(maker):
    class Schema(Out):
        author: Annotated[str, BeforeValidator(lambda author: author.country.name)]

    assert await shown(maker, Schema) == {"author": "Fiji"}


async def test_a_model_validator_that_reads_the_entity(maker):
    class Schema(Out):
        country: str
        copies: list[int]

        @model_validator(mode="before")
        @classmethod
        def flatten(cls, book: Any) -> Any:
            return {
                "country": book.author.country.name,
                "copies": [printing.copies for edition in book.editions for printing in edition.prints],
            }

    assert await shown(maker, Schema) == {"country": "Fiji", "copies": [10, 5]}


async def test_computed_fields_read_the_model_which_is_loaded_already(maker):
    class Schema(Out):
        author: AuthorOut

        @computed_field
        @property
        def country(self) -> str:
            return self.author.country.name

    assert (await shown(maker, Schema))["country"] == "Fiji"


async def test_a_relationship_that_nothing_names_is_added_beside_the_plan(maker):
    class Schema(Out):
        title: str

    async with maker() as session:
        statement = select(Book).order_by(Book.id).limit(1)
        beside = await session.scalar(statement.options(load(Book, Schema), selectinload(Book.tags)))
        inside = await session.scalar(statement.options(load(Book, Schema).joinedload(Book.author)))

    assert [tag.word for tag in beside.tags] == ["tag 1"]
    assert inside.author.name == "Ada"


# -- unions and inheritance --------------------------------------------------------------------------------------------


async def test_a_discriminated_union_inside_a_collection_brings_each_subclass(maker):
    class Schema(Out):
        media: list[Annotated[AudioOut | FilmOut, Field(discriminator="kind")]]

    assert await shown(maker, Schema) == {
        "media": [
            {"kind": "audio", "seconds": 60, "reader": {"name": "Eve", "country": {"name": "Fiji"}}},
            {"kind": "film", "scenes": [{"name": "start"}]},
        ]
    }


async def test_a_union_told_apart_by_a_function(maker):
    Any_ = Annotated[  # noqa: N806 - a type
        Annotated[AudioOut, Tag("audio")] | Annotated[FilmOut, Tag("film")], Discriminator(lambda medium: medium.kind)
    ]

    class Schema(Out):
        media: list[Any_]

    assert [medium["kind"] for medium in (await shown(maker, Schema))["media"]] == ["audio", "film"]


async def test_generic_models_and_inherited_fields_reach_as_deep(maker):
    T = TypeVar("T")

    class Page(Out, Generic[T]):
        tags: list[T]

    class Schema(Page[TagOut]):
        title: str

    assert await shown(maker, Schema) == {"tags": [{"word": "tag 1", "language": {"name": "Fiji"}}], "title": "Book 1"}


def test_a_union_none_of_whose_models_fits_is_refused_with_all_names():
    class One(Out):
        nothing: int

    class Two(Out):
        nowhere: int

    with pytest.raises(
        ConfigurationError, match=r"No Book can become a One or a Two: One\.nothing reads Book\.nothing"
    ):
        load(Book, One | Two)


# -- dicts and dataclasses ---------------------------------------------------------------------------------------------


async def test_a_dict_field_takes_a_relationship_that_is_a_dict(maker):
    class Schema(Out):
        tags_by_word: dict[str, TagOut]

    assert await shown(maker, Schema) == {"tags_by_word": {"tag 1": {"word": "tag 1", "language": {"name": "Fiji"}}}}


@pytest.mark.parametrize(
    ("name", "annotation", "message"),
    [
        ("tags", dict[str, TagOut], r"Book\.tags is a list, Wrong\.tags asks for a dict"),
        ("tags_by_word", list[TagOut], r"Book\.tags_by_word is a dict, Wrong\.tags_by_word asks for a list"),
        ("tags_by_word", TagOut, r"Book\.tags_by_word is a collection, Wrong\.tags_by_word asks for one TagOut"),
    ],
)
def test_a_dict_where_there_is_none_is_refused(name, annotation, message):
    Wrong = type("Wrong", (Out,), {"__annotations__": {name: annotation}, "__module__": __name__})  # noqa: N806

    with pytest.raises(ConfigurationError, match=message):
        load(Book, Wrong)


@dataclasses.dataclass
class Named:
    name: str


class Numbered(TypedDict):
    number: int
    nothing: NotRequired[str]


@dataclasses.dataclass
class Written:
    title: str
    author: Named
    editions: list[Numbered] = dataclasses.field(default_factory=list)


def test_a_dataclass_and_a_typed_dict_say_what_to_load_as_a_model_does():
    assert steps(Book, Written) == ["Book.author: joined, inner", "Book.editions: selectin"]


# -- narrowing ---------------------------------------------------------------------------------------------------------


async def test_whole_columns_come_by_default_and_only_those_read_on_request(maker):
    class Schema(Out):
        title: str
        author: AuthorOut

    async with maker() as session:
        statement = select(Book).order_by(Book.id).limit(1)
        narrow = await session.scalar(statement.options(load(Book, Schema, narrow=True)))
        assert inspect(narrow).unloaded >= {"pages", "sheets", "blurb"}
        assert inspect(narrow.author).unloaded >= {"books"}
        with pytest.raises(InvalidRequestError, match="pages"):
            _ = narrow.pages
    async with maker() as session:
        whole = await session.scalar(statement.options(load(Book, Schema)))

    assert (narrow.title, narrow.author.country.name) == ("Book 1", "Fiji")
    assert (whole.pages, whole.sheets) == (100, 50)


async def test_narrowing_keeps_what_code_reads(maker):
    class Schema(Out):
        by: str
        labels: list[str]
        sheets: int
        blurb: str

    assert await shown(maker, Schema, narrow=True) == {
        "by": "Ada of Fiji",
        "labels": ["Book 1, edition 1: 10", "Book 1, edition 1: 5"],
        "sheets": 50,
        "blurb": "a blurb",
    }


async def test_narrowing_does_not_guess_what_a_model_validator_reads(maker):
    class Pages(Out):
        pages: int

        @model_validator(mode="before")
        @classmethod
        def flatten(cls, book: Any) -> Any:
            return {"pages": getattr(book, cls.__name__.lower())}

    assert await shown(maker, Pages, narrow=True) == {"pages": 100}


# -- the cost ----------------------------------------------------------------------------------------------------------


async def test_the_statements_of_an_answer_do_not_grow_with_its_rows(maker):
    class PrintOut(Out):
        copies: int

    class EditionOut(Out):
        prints: list[PrintOut]

    class BookOut(Out):
        editions: list[EditionOut]
        tags: list[TagOut]

    class Schema(Out):
        books: list[BookOut]

    counts = []
    for books in (0, 40):
        async with maker.begin() as session:
            for number in range(3, 3 + books):
                editions = [Edition(number=edition, prints=[Print(copies=1)]) for edition in (1, 2, 3)]
                tags = [Keyword(word="more", language_id=1)]
                session.add(Book(id=number, title="more", author_id=1, tags=tags, editions=editions))
        maker.queries.clear()
        answer = await shown(maker, Schema, entity=Author)
        counts.append((len(answer["books"]), count(maker)))

    assert counts == [(2, 5), (42, 5)]


async def test_a_locking_read_takes_single_relationships_in_a_statement_of_their_own(maker):
    class Schema(Out):
        author: AuthorOut

    async with maker.begin() as session:
        statement = select(Book).where(Book.id == 1).with_for_update()
        book = await session.scalar(statement.options(load(Book, Schema, for_update=True)))

    assert Schema.model_validate(book).author.country.name == "Fiji"
    assert count(maker) == 3


async def test_an_option_by_hand_that_says_the_same_sends_the_same_statements(maker):
    class Schema(Out):
        title: str
        author: AuthorOut
        tags: list[TagOut]

    statement = select(Book).order_by(Book.id)
    by_hand = (
        joinedload(Book.author, innerjoin=True).joinedload(Author.country, innerjoin=True),
        selectinload(Book.tags).joinedload(Keyword.language, innerjoin=True),
    )
    texts = []
    for options in ((load(Book, Schema),), by_hand):
        maker.queries.clear()
        async with maker() as session:
            (await session.scalars(statement.options(*options))).all()
        texts.append(sorted(query.fingerprint for query in maker.queries))

    assert texts[0] == texts[1]
