# SPDX-License-Identifier: Apache-2.0
"""What a model is made from: base model, ratings, items, keywords, teacher and reasoning traces."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from thinkrec_crds.fields import (
    INT32_MAX,
    SET,
    ColumnName,
    DataUri,
    DecimalText,
    HttpUrl,
    Int32,
    ModelUri,
    Revision,
    SecretReference,
    ShortText,
)
from thinkrec_crds.rules import ApiType, Rule, at_least_one, not_above, only_when, required_when

TableFormat = Literal["Parquet", "CSV", "JSONLines", "RecBole"]
SplitMethod = Literal["PerUserTemporal", "GlobalTemporal"]
KeywordSource = Literal["Attributes", "LLM", "None"]
TeacherType = Literal["Self", "OpenAI"]


class BaseModelSource(ApiType):
    """The language model that is adapted; its own weights are never changed."""

    storage_uri: ModelUri = Field(
        description="Where the weights are: s3://bucket/key, hf://organisation/name, file:///absolute or file:relative."
    )
    revision: Revision | None = Field(
        default=None, description="Commit, tag or date of the weights; a new value trains again. Pin it for Git."
    )
    secret_ref: SecretReference | None = Field(
        default=None, description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or HF_TOKEN."
    )


class RatingColumns(ApiType):
    """Names of the columns in the ratings table."""

    user: ColumnName = Field(default="user_id", description="Column that identifies the user.")
    item: ColumnName = Field(default="item_id", description="Column that identifies the item.")
    rating: ColumnName = Field(default="rating", description="Column with the rating, a number.")
    timestamp: ColumnName = Field(
        default="timestamp", description="Column with the time of the rating, in seconds since 1970 or ISO 8601."
    )


class ItemColumns(ApiType):
    """Names of the columns in the items table."""

    item: ColumnName = Field(default="item_id", description="Column that identifies the item, as in the ratings.")
    title: ColumnName = Field(default="title", description="Column with the title that stands in the prompt.")
    attributes: Annotated[tuple[ColumnName, ...], SET] = Field(
        default=(), max_length=16, description="Columns with genres, tags or other words that describe the item."
    )


class ItemTable(ApiType):
    """The catalogue: one row for each item."""

    storage_uri: DataUri = Field(
        description="File or folder of the table: s3://bucket/key, file:///absolute or file:relative."
    )
    format: TableFormat = Field(default="Parquet", description="File format of the table.")
    columns: ItemColumns = Field(default=ItemColumns(), description="Names of the columns.")


class DatasetLimits(ApiType):
    """Cuts the data down for a laptop or a demonstration; the same rows every time."""

    RULES: ClassVar[tuple[Rule, ...]] = (at_least_one("max_users"),)

    max_users: Int32 | None = Field(
        default=None,
        ge=1,
        le=INT32_MAX,
        description="Number of users kept, drawn by a hash of the user; unset keeps all.",
    )


class Dataset(ApiType):
    """Ratings and items, and how they become labelled rows."""

    storage_uri: DataUri = Field(
        description="File or folder of the ratings: s3://bucket/key, file:///absolute or file:relative."
    )
    revision: Revision | None = Field(
        default=None, description="Version of the data; a new value trains again. Pin it for Git."
    )
    format: TableFormat = Field(default="Parquet", description="File format of the ratings.")
    columns: RatingColumns = Field(default=RatingColumns(), description="Names of the columns.")
    items: ItemTable = Field(description="The catalogue: titles and attributes of the items.")
    label_threshold: DecimalText = Field(
        default="4", description="A rating of at least this many points is a like (label 1)."
    )
    split: SplitMethod = Field(
        default="PerUserTemporal",
        description="PerUserTemporal cuts each user 80/10/10 by time; GlobalTemporal cuts all at two moments.",
    )
    history_length: Int32 = Field(
        default=10, ge=1, le=100, description="Number of latest interactions shown in the prompt."
    )
    limits: DatasetLimits | None = Field(default=None, description="Use a sample of the data only.")
    secret_ref: SecretReference | None = Field(
        default=None,
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; unset uses the pod's identity.",
    )


class Keywords(ApiType):
    """How an item's metadata is summarised for the prompt."""

    source: KeywordSource = Field(
        default="LLM",
        description="LLM asks the teacher; Attributes takes the item's attributes; None leaves keywords out.",
    )
    max_keywords: Int32 = Field(default=10, ge=1, le=50, description="Number of keywords for each item, at most.")


class Teacher(ApiType):
    """Who writes the reasoning traces (and the keywords, when they come from a language model)."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        required_when("type", "OpenAI", "base_url"),
        required_when("type", "OpenAI", "model"),
        only_when("type", "OpenAI", "base_url"),
        only_when("type", "OpenAI", "model"),
        only_when("type", "OpenAI", "secret_ref"),
    )

    type: TeacherType = Field(
        default="Self", description="Self is the base model itself; OpenAI is any OpenAI-compatible endpoint."
    )
    base_url: HttpUrl | None = Field(
        default=None, description="Address of the endpoint, for example https://host/v1; without credentials."
    )
    model: ShortText | None = Field(default=None, description="Model name that is sent to the endpoint.")
    secret_ref: SecretReference | None = Field(
        default=None, description="Secret with OPENAI_API_KEY; unset sends no key."
    )
    max_concurrency: Int32 = Field(default=8, ge=1, le=1024, description="Requests in flight at once, for each pod.")
    max_rounds: Int32 = Field(
        default=3,
        ge=1,
        le=10,
        description="Attempts for each sample; from the second on the right answer is hinted at.",
    )
    max_tokens: Int32 = Field(default=256, ge=16, le=8192, description="Tokens of one answer, at most.")


class Traces(ApiType):
    """How much reasoning is collected."""

    RULES: ClassVar[tuple[Rule, ...]] = (not_above("max_samples", "pool_size"),)

    pool_size: Int32 = Field(
        default=2000,
        ge=0,
        le=10_000_000,
        description="Training samples scored to find those the base model gets wrong.",
    )
    max_samples: Int32 = Field(
        default=500, ge=0, le=1_000_000, description="Traces kept, at most; 0 trains without reasoning."
    )
