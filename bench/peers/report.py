"""Medians and ratios of the rounds, and the tables."""

import statistics
from collections.abc import Callable
from typing import Any

#: What ratios are to: hnswlib, and whichever faiss is quickest at the target.
REFERENCE = "hnswlib"
FAMILY = "faiss-"
#: Bytes of mapped files from which on they are told: a library's own code is a few million.
MAPPED_SHOWN = 5_000_000

HEADER = (
    "engine",
    "build s (CPU s; others)",
    "memory MB (+ mapped)",
    "disk MB",
    "recall",
    "setting",
)


def summarise(results: dict[str, Any], targets: list[str]) -> None:
    """Puts the medians of each engine's rounds beside them, as `summary`."""
    for result in results.values():
        result["summary"] = {
            target: medians(rounds)
            for target in targets
            if (rounds := [one[target] for one in result["rounds"] if one and target in one])
        }


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure over the rounds."""
    found: dict[str, Any] = {}
    for key, value in rounds[0].items():
        if isinstance(value, dict):
            found[key] = medians([one[key] for one in rounds])
        else:
            found[key] = statistics.median(one[key] for one in rounds)
    return found


def ratio(
    ours: dict[str, Any], theirs: dict[str, Any], target: str, figure: Callable[[Any], float]
) -> float | None:
    """The median over the rounds of the ratio within a round; both took turns in each."""
    ratios = [
        figure(mine[target]) / figure(other[target])
        for mine, other in zip(ours["rounds"], theirs["rounds"], strict=False)
        if mine and other and target in mine and target in other
    ]
    return statistics.median(ratios) if ratios else None


def quickest(results: dict[str, Any], target: str, threads: str) -> str | None:
    """The engine of faiss with the highest rate at the target."""
    rates = {
        name: result["summary"][target]["qps"][threads]
        for name, result in results.items()
        if name.startswith(FAMILY) and target in result["summary"]
    }
    return max(rates, key=lambda name: rates[name]) if rates else None


def table(results: dict[str, Any], targets: list[str], threads: list[str]) -> str:
    """One data set as Markdown: a line for each engine and target."""
    rates = [f"QPS, {count} thr" for count in threads]
    ratios = [f"x {whose}, {count} thr" for whose in (REFERENCE, "faiss") for count in threads]
    header = [*HEADER, *rates, *ratios, "p50 / p99 ms", "others"]
    lines = [header, ["---"] * len(header)]
    for target in targets:
        best = {count: quickest(results, target, count) for count in threads}
        for name, result in results.items():
            settings = result["settings"]
            if target not in result["summary"]:
                # What needs no setting has one line only, and the rest none for that target.
                if target in settings or (target != "exact" and "exact" not in settings):
                    missing = "failed" if target in settings else "not reached"
                    empty = [""] * (len(header) - len(HEADER))
                    lines.append([name, *sizes(result), target, missing, *empty])
                continue
            figures = result["summary"][target]
            cells = [name, *sizes(result), f"{settings[target]['recall']:.4f}"]
            cells.append(setting(settings[target]["parameters"]))
            cells += [f"{figures['qps'][count]:,.0f}" for count in threads]
            for other in (dict.fromkeys(threads, REFERENCE), best):
                cells += [against(results, name, other[count], target, count) for count in threads]
            cells.append(f"{figures['p50_ms']:.3f} / {figures['p99_ms']:.3f}")
            cells.append(f"{max(figures['foreign'].values()):.2f}")
            lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def against(results: dict[str, Any], name: str, other: str | None, target: str, count: str) -> str:
    """A cell with the ratio of rates, empty where there is nothing to compare with."""
    if other is None or other not in results:
        return ""
    found = ratio(results[name], results[other], target, lambda point: point["qps"][count])
    return "" if found is None else f"{found:.2f}"


def setting(parameters: dict[str, Any]) -> str:
    """Search parameters in a cell."""
    return " ".join(f"{name}={value}" for name, value in parameters.items()) or "exact"


def sizes(result: dict[str, Any]) -> list[str]:
    """Cells with build time, memory and disk."""
    build, taken = result["build"], result["bytes"]
    wall, cpu = (
        "?" if build.get(key) is None else f"{build[key]:.1f}" for key in ("seconds", "cpu_seconds")
    )
    memory = f"{taken['resident'] / 1e6:.0f}"
    if taken.get("mapped", 0) >= MAPPED_SHOWN:
        memory += f" (+ {taken['mapped'] / 1e6:.0f})"
    return [f"{wall} ({cpu}; {build['foreign']:.2f})", memory, f"{taken['file'] / 1e6:.0f}"]


def document(run: dict[str, Any]) -> str:
    """All data sets, with what has to be known to read the figures."""
    machine, options = run["machine"], run["options"]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}; started "
        f"{machine['started']} at a load of {machine['load_average'][0]:.1f}. Medians of "
        f"{options['rounds']} rounds in which the engines took turns; ratios are medians of the "
        f"ratio within a round. `others`: most cores that other processes used meanwhile."
    ]
    for name, data in run["datasets"].items():
        parts.append(
            f"### {name}: {data['rows']:,} x {data['dimension']}, {data['metric']}, "
            f"recall@{options['k']}"
        )
        targets = [*(str(target) for target in options["targets"]), "exact"]
        threads = [str(count) for count in options["threads"]]
        parts.append(table(data["engines"], targets, threads))
        versions = {result["build"]["version"] for result in data["engines"].values()}
        parts.append(", ".join(sorted(versions)) + ".")
        if data["failed"]:
            parts.append("Failed: " + "; ".join(data["failed"]) + ".")
    return "\n\n".join(parts) + "\n"
