"""Draws series of numbers as small SVG files, with gnuplot."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

COLORS = ("#1b6ac9", "#d9731a", "#5a9e3c", "#8a8f98")
LOG_RANGE = 10  # an axis whose numbers grow by more than this factor, and that has no 0, is logarithmic


@dataclass
class Chart:
    """One picture: {name of a line: [(x, y), …]}."""

    title: str
    x: str
    y: str
    lines: dict
    log_y: bool = False

    def log_x(self) -> bool:
        numbers = [x for line in self.lines.values() for x, _ in line]
        return min(numbers) > 0 and max(numbers) / min(numbers) > LOG_RANGE

    def script(self, file: Path) -> str:
        axes = ("x" if self.log_x() else "") + ("y" if self.log_y else "")
        blocks = "".join(f"$line{number} << END\n{points(line)}END\n" for number, line in enumerate(self.lines.values()))
        plots = ", ".join(f"$line{number} with linespoints lw 2 pt 7 ps 0.5 lc rgb '{COLORS[number]}' title \"{name}\""
                          for number, name in enumerate(self.lines))
        return f"""
            set terminal svg size 560,320 font 'sans-serif,12' background '#ffffff'
            set output '{file}'
            set title "{self.title}"
            set xlabel "{self.x}"
            set ylabel "{self.y}"
            set format y {'"10^{%T}"' if self.log_y else '"%g"'}
            set format x {'"10^{%T}"' if self.log_x() else '"%g"'}
            {f'set logscale {axes}' if axes else ''}
            {'' if self.log_y else 'set yrange [0:*]'}
            set offsets graph 0, graph 0, graph {0 if self.log_y else 0.15}, 0
            set grid lc rgb '#dddddd'
            set border 3 lc rgb '#666666'
            set tics nomirror
            set key top left
        """.replace("            ", "") + f"{blocks}plot {plots}\n"

    def write(self, file: Path) -> None:
        subprocess.run(["gnuplot"], input=self.script(file), text=True, check=True)


def points(line: list) -> str:
    return "".join(f"{x} {y}\n" for x, y in line)
