"""A matplotlib figure as an <svg> element for a page: in the page's colours and font, the same bytes for the same figures."""

import io
import re
import warnings
from html import escape

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

# Each is replaced by a custom property of the page's style sheet, so that one drawing works in light and in dark.
INK, MUTED, LINE, SOFT, ACCENT = "#010203", "#010204", "#010205", "#010206", "#010207"
PROPERTIES = {INK: "--ink", MUTED: "--muted", LINE: "--line", SOFT: "--soft", ACCENT: "--accent"}
WIDTH = 5.0  # inches: 360 units of the drawing, so about 360 pixels and text of 12 on a phone

matplotlib.rcParams.update(
    {
        "svg.hashsalt": "tunepress",  # element ids are random without it
        "svg.fonttype": "none",  # text stays text
        "text.parse_math": False,  # a label may hold dollar signs
        "font.size": 12,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": LINE,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "legend.frameon": False,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
    }
)


def inline(figure: Figure, name: str, title: str, description: str) -> Markup:
    """The figure as an <svg> element that fills its box's width.

    Args:
        figure: drawn in the colours of this module.
        name: the prefix of every id in the element, including the `gid` of artists.
        title: its name for a screen reader.
        description: what it shows, in words.
    """
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser draws the text, with a font that has it
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :].rstrip()
    drawn = re.sub(r"\s*<metadata>.*?</metadata>|\s*<defs>\s*<style.*?</defs>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'\bid="', f'id="{name}-', drawn)
    drawn = re.sub(r'(url\(#|href="#)', rf"\1{name}-", drawn)
    drawn = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", drawn)
    for colour, custom_property in PROPERTIES.items():
        drawn = drawn.replace(colour, f"var({custom_property})")
    box = re.search(r'viewBox="([^"]+)"', drawn)
    assert box
    head = (
        f'<svg viewBox="{box.group(1)}" role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-description">{escape(description)}</desc>'
    )
    return Markup(head + drawn[drawn.index(">") + 1 :])  # noqa: S704  (matplotlib escapes text)
