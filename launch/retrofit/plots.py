"""Plots of a run as SVG, from its log: loss and perplexity, compression ratio, and the heat map of layers and heads."""
import json
import pathlib

WIDTH, HEIGHT, LEFT, TOP, LEGEND = 720, 300, 64, 34, 120
COLOURS = ["#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706", "#0891b2"]


def event_of(line):
    """-> the line's fields; None of a line that a killed process left half written"""
    try:
        return json.loads(line)
    except ValueError:
        return None


def read_log(path):
    events = [event for event in map(event_of, pathlib.Path(path).read_text().splitlines()) if event]
    return [e for e in events if e["event"] == "step"], [e for e in events if e["event"] == "evaluation"]


def text(x, y, content, anchor="start", size=12):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-family="sans-serif" text-anchor="{anchor}">{content}</text>'


def document(width, height, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>"]) + "\n"


def curves(title, series):
    """series: {name: [(x, y)]} -> SVG"""
    points = [p for line in series.values() for p in line]
    if not points:
        return document(WIDTH, HEIGHT, [text(LEFT, 20, title + ": no data")])
    xs, ys = [p[0] for p in points], sorted(p[1] for p in points)
    low, high = ys[0], ys[min(len(ys) - 1, int(len(ys) * 0.995))]
    high = high if high > low else low + 1
    right, bottom, span = WIDTH - LEGEND, HEIGHT - 34, max(1, max(xs) - min(xs))
    px = lambda x: LEFT + (x - min(xs)) / span * (right - LEFT)
    py = lambda y: bottom - (min(y, high) - low) / (high - low) * (bottom - TOP)
    parts = [text(LEFT, 18, title, size=14)]
    for i in range(5):
        value = low + (high - low) * i / 4
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{py(value):.1f}" y2="{py(value):.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, py(value) + 4, f"{value:.3g}", "end"))
        step = min(xs) + span * i / 4
        parts.append(text(px(step), bottom + 18, f"{step:.0f}", "middle"))
    for (name, line), colour in zip(series.items(), COLOURS):
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    for i, (name, colour) in enumerate(zip(series, COLOURS)):
        parts.append(f'<rect x="{right + 14}" y="{TOP + 16 * i}" width="10" height="10" fill="{colour}"/>')
        parts.append(text(right + 29, TOP + 9 + 16 * i, name))
    return document(WIDTH, HEIGHT, parts)


def shade(value):
    """0 light, 1 dark"""
    mix = lambda a, b: round(a + (b - a) * min(max(value, 0), 1))
    return f"rgb({mix(239, 30)},{mix(246, 58)},{mix(255, 138)})"


def heat_map(title, accumulate):
    """accumulate [L][Hkv], the share of merged tokens -> SVG with a ratio in each cell"""
    cell, layers, heads = 34, len(accumulate), len(accumulate[0])
    width, height = LEFT + cell * layers + 16, TOP + 16 + cell * heads + 40
    parts = [text(LEFT, 18, title, size=14)]
    for layer, row in enumerate(accumulate):
        x = LEFT + cell * layer
        parts.append(text(x + cell / 2, TOP + 16 + cell * heads + 16, str(layer), "middle", 10))
        for head, share in enumerate(row):
            y, ratio = TOP + 16 + cell * head, 1 / max(1e-3, 1 - share)
            parts.append(f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{shade(share)}"/>')
            colour = "white" if share > 0.55 else "black"
            parts.append(text(x + cell / 2, y + cell / 2 + 4, f"{ratio:.1f}", "middle", 10).replace("<text", f'<text fill="{colour}"'))
    parts += [text(LEFT - 8, TOP + 16 + cell * (h + 0.6), f"head {h}", "end", 11) for h in range(heads)]
    parts.append(text(LEFT, height - 6, "layer; tokens for each slot of a KV head", size=11))
    return document(width, height, parts)


def write(log, folder):
    steps, evaluations = read_log(log)
    pick = lambda events, name: [(e["step"], e[name]) for e in events]
    texts = {name: [e for e in evaluations if e["name"] == name] for name in dict.fromkeys(e["name"] for e in evaluations)}
    of = lambda field: {name: pick(events, field) for name, events in texts.items()}
    folder = pathlib.Path(folder)
    (folder / "loss.svg").write_text(curves("KL to the unmodified model", {"training": pick(steps, "kl"), **of("kl")}))
    (folder / "perplexity.svg").write_text(curves("Perplexity over that of the unmodified model", {
        name: [(e["step"], e["perplexity"] / e["teacher_perplexity"]) for e in events] for name, events in texts.items()}))
    (folder / "compression.svg").write_text(curves("Compression ratio", {
        "target": pick(steps, "target_cr"), "relaxed": pick(steps, "cr"), "decided": pick(steps, "hard_cr"), **of("cr")}))
    if texts:
        name, events = next(iter(texts.items()))
        (folder / "heads.svg").write_text(heat_map(f"Compression by layer and KV head, {name}", events[-1]["by_head"]))
