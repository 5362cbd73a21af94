"""Dashboards as plain values, and the one place that turns them into Grafana's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

Unit = Literal["short", "s", "percentunit", "ops", "bytes", "reqps", "none"]
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WIDTH, _HEIGHT = 8, 7


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are named."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of one question."""

    title: str
    queries: tuple[Query, ...]
    description: str
    unit: Unit = "short"
    is_number: bool = False
    is_quiet: bool = False
    """Nothing is drawn as long as nothing goes wrong: no failures, no retries."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; `name` is its file's and its stable address in Grafana."""

    name: str
    title: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them."""
        return tuple(panel for row in self.rows for panel in row.panels)


def to_json(board: Board) -> str:
    """Grafana's document."""
    made = (
        dashboard.Dashboard(f"Espalier / {board.title}").uid(f"espalier-{board.name}").tags(["espalier"]).readonly()
        .refresh("30s").time("now-1h", "now").timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )  # fmt: skip
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> Any:
    builder: Any = stat.Panel() if panel.is_number else timeseries.Panel().fill_opacity(10)
    builder = (
        builder.title(panel.title).description(panel.description).unit(panel.unit).datasource(_SOURCE)
        .span(_WIDTH).height(_HEIGHT)
    )  # fmt: skip
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).ref_id(chr(ord("A") + number)).datasource(_SOURCE)
        builder = builder.with_target(target.legend_format(query.legend) if query.legend else target)
    return builder


__all__ = ["Board", "Panel", "Query", "Row", "to_json"]
