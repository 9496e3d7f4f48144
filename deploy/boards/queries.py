"""Frequent queries of the boards, as PromQL.

`$__rate_interval` is Grafana's window for rates: at least four scrapes.
"""

from typing import Final

from deploy.boards.panel import Panel, Query, Unit


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Returns the rate per second of a counter, summed over instances, by labels.

    Args:
        metric: Name of the counter.
        by: Labels that are kept, with commas.
        where: Label matchers of the selector, without braces.
    """
    kept = f" by ({by})" if by else ""
    return f"sum{kept} (rate({metric}{{{where}}}[$__rate_interval]))"


def increase(metric: str, by: str = "", where: str = "", window: str = "$__range") -> str:
    """Returns the increase of a counter over a window, summed over instances, by labels."""
    kept = f" by ({by})" if by else ""
    return f"sum{kept} (increase({metric}{{{where}}}[{window}]))"


def whole(metric: str, by: str = "", where: str = "") -> str:
    """Returns a gauge of a whole installation, which every instance shows alike; several installations are added.

    Args:
        metric: Name of the gauge, one of those "of the whole registry" or "of the public view".
        by: Labels that are kept, with commas.
        where: Label matchers of the selector, without braces.
    """
    selector = f"{metric}{{{where}}}" if where else metric
    kept = f" by ({by})" if by else ""
    return f"sum{kept} (max by ({', '.join(filter(None, ('namespace', by)))}) ({selector}))"


def occurring(expr: str) -> str:
    """Returns a query without the series that are 0: of many reasons, those alone that occur."""
    return f"{expr} > 0"


def counted(expr: str) -> str:
    """Returns a gauge of the provisioner's census, cut where the census is older than a minute; for panels alone.

    While the registry is away the gauges keep their last values, and would be drawn on as if they were new.
    """
    return f"{expr} and on () ({CENSUS_AGE} < 60)"


CENSUS_AGE: Final = "time() - max(lifecycle_provisioner_census_timestamp_seconds > 0)"
"""Age of the newest census of the registry, seconds."""


def quantiles(
    histogram: str, by: str = "", where: str = "", at: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> tuple[Query, ...]:
    """Returns a query per quantile of a histogram, over all instances.

    Args:
        histogram: Name of the histogram, without `_bucket`.
        by: Labels that are kept, with commas.
        where: Label matchers of the selector, without braces.
        at: The quantiles.
    """
    labels = ", ".join(("le", *([by] if by else [])))
    legend = "".join(f" {{{{{label.strip()}}}}}" for label in by.split(",") if label)
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[$__rate_interval])))",
            f"p{q * 100:g}{legend}",
        )
        for q in at
    )


def resources(job: str) -> tuple[Panel, Panel]:
    """Returns the panels of processor and memory of a service's processes."""
    return (
        Panel(
            title=f"Processor of the {job}",
            description="Cores that each process uses. The main loop is one thread: near 1 core the process is at its "
            "limit, and a further instance helps.",
            unit=Unit.CORES,
            queries=(Query(f'rate(process_cpu_seconds_total{{job="{job}"}}[$__rate_interval])', "{{instance}}"),),
        ),
        Panel(
            title=f"Memory of the {job}",
            description="Resident memory of each process. A steady rise over days is a leak.",
            unit=Unit.BYTES,
            queries=(Query(f'process_resident_memory_bytes{{job="{job}"}}', "{{instance}}"),),
        ),
    )
