"""Text is legible in both themes: its contrast is at least that of WCAG 2.2, level AA."""

from __future__ import annotations

import re

import pytest

from nases_env.report.page import FOLDER

TEXTS = ("ink", "soft", "accent", "bad", *(f"s{index}" for index in range(7)))
BOXES = ("identity", "small", "large", "avg", "max")


def palette(theme: int) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", (FOLDER / "style.css").read_text(), re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[theme]))


def luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(theme: int) -> None:
    colors = palette(theme)
    for name in TEXTS:
        assert contrast(colors[name], colors["paper"]) >= 4.5, name
    for name in BOXES:
        assert contrast(colors[name], colors["on-op"]) >= 4.5, name
    assert contrast(colors["edge"], colors["paper"]) >= 3.0
