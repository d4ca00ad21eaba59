"""Drawings as LaTeX documents with TikZ, for papers."""

from __future__ import annotations

from nases_env.visualization.scene import TITLE_FONT_SIZE, Box, Disk, Line, Point, Scene, Text, control_points

PREAMBLE = r"""\documentclass[tikz,border=2pt]{standalone}
\renewcommand{\familydefault}{\sfdefault}
\tikzset{
  every node/.style={inner sep=0pt, font=\footnotesize},
  box/.style={draw, line width=0.6pt},
  rounded/.style={box, rounded corners=1.5pt},
  sum/.style={circle, draw, fill=white, line width=1pt, minimum size=0.26in, font=\scriptsize},
  value/.style={line width=1pt, preaction={draw=white, line width=3pt}},
  loose end/.style={line width=1pt, dashed},
  heading/.style={font=\small},
}
"""

SPECIAL = {
    **{each: rf"\{each}" for each in "#$%&_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$"},
}


def to_tikz(scene: Scene) -> str:
    """Return ``scene`` as a standalone document; its ``tikzpicture`` can be copied into a paper with the preamble."""
    colors: dict[str, str] = {}
    body = [_command(shape, colors) for shape in scene.shapes]
    definitions = [rf"\definecolor{{{name}}}{{HTML}}{{{code[1:].upper()}}}" for code, name in colors.items()]
    return "\n".join(
        [
            PREAMBLE + "\n".join(definitions),
            r"\begin{document}",
            r"\begin{tikzpicture}[x=1in, y=1in]",
            *body,
            r"\end{tikzpicture}",
            r"\end{document}",
            "",
        ]
    )


def _command(shape: Box | Disk | Line | Text, colors: dict[str, str]) -> str:
    def color(code: str) -> str:
        return colors.setdefault(code, f"nases{chr(ord('A') + len(colors))}")

    match shape:
        case Box():
            style = "rounded" if shape.is_rounded else "box"
            size = f"minimum width={shape.width:.2f}in, minimum height={shape.height:.2f}in"
            options = f"{style}, {size}, draw={color(shape.edge)}, fill={color(shape.fill)}"
            return rf"\node[{options}] at {_point(shape.center)} {{{_escape(shape.text)}}};"
        case Disk():
            return rf"\node[sum, draw={color(shape.edge)}] at {_point(shape.center)} {{{_escape(shape.text)}}};"
        case Line():
            style = "loose end" if shape.is_dashed else "value"
            return rf"\draw[{style}, draw={color(shape.color)}] {' '.join(map(_path, shape.paths))};"
        case Text():
            styles = ["heading"] * (shape.size == TITLE_FONT_SIZE) + ["anchor=west"] * (not shape.is_centered)
            return rf"\node[{', '.join(styles)}] at {_point(shape.position)} {{{_escape(shape.text)}}};"


def _path(path: tuple[Point, ...]) -> str:
    curves = [
        f".. controls {_point(first)} and {_point(second)} .. {_point(end)}" for first, second, end in control_points(path)
    ]
    return " ".join([_point(path[0]), *curves])


def _point(point: Point) -> str:
    return f"({point.x:.3f}, {point.y:.3f})"


def _escape(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)
