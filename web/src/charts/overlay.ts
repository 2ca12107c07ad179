/** What is drawn over the curves: reference lines, alarms and values that are not finite. */

import type uPlot from "uplot";

import type { Alarm } from "../data/types";
import { color, faded } from "./palette";

export interface ReferenceLine {
  value: number;
  label: string;
}

function vertical(plot: uPlot, step: number): void {
  const { left, top, width, height } = plot.bbox;
  const x = Math.round(plot.valToPos(step, "x", true)) + 0.5;
  if (x < left || x > left + width) return;
  plot.ctx.beginPath();
  plot.ctx.moveTo(x, top);
  plot.ctx.lineTo(x, top + height);
  plot.ctx.stroke();
}

/** Write over the curves, on a ground of their background; `y` is the lower edge. */
function write({ ctx }: uPlot, text: string, x: number, y: number, align: CanvasTextAlign): void {
  ctx.save();
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textAlign = align;
  ctx.textBaseline = "bottom";
  ctx.setLineDash([]);
  ctx.lineWidth = 4 * devicePixelRatio;
  ctx.lineJoin = "round";
  ctx.strokeStyle = color("--page");
  ctx.strokeText(text, x, y);
  ctx.fillStyle = color("--muted");
  ctx.fillText(text, x, y);
  ctx.restore();
}

/** What is to be added to each label of the y axis, at its upper end. */
export function drawBase(plot: uPlot, base: string): void {
  if (!base) return;
  const { left, top } = plot.bbox;
  const text = base.startsWith("−") ? `− ${base.slice(1)}` : `+ ${base}`;
  write(plot, text, left + 4 * devicePixelRatio, top + 13 * devicePixelRatio, "left");
}

/** A dashed horizontal line with its meaning at the right end. */
export function drawReferences(plot: uPlot, references: ReferenceLine[]): void {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.lineWidth = ratio;
  ctx.setLineDash([2 * ratio, 3 * ratio]);
  for (const { value, label } of references) {
    const y = Math.round(plot.valToPos(value, "y", true)) + 0.5;
    if (!(y >= bbox.top && y <= bbox.top + bbox.height)) continue;
    ctx.strokeStyle = color("--muted");
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    write(plot, label, bbox.left + bbox.width - 4 * ratio, y - 2 * ratio, "right");
  }
  ctx.restore();
}

export function drawAlarms(plot: uPlot, alarms: Alarm[]): void {
  plot.ctx.save();
  plot.ctx.lineWidth = devicePixelRatio;
  plot.ctx.setLineDash([devicePixelRatio, 3 * devicePixelRatio]);
  for (const alarm of alarms) {
    plot.ctx.strokeStyle = alarm.level === "note" ? faded("--muted", 0.5) : faded("--alarm", 0.7);
    vertical(plot, alarm.step);
  }
  plot.ctx.restore();
}

/** A cross at the upper edge for every step whose value is not finite. */
export function drawGaps(plot: uPlot, curves: { color: string; bad: number[] }[]): void {
  const { ctx, bbox } = plot;
  const size = 3.5 * devicePixelRatio;
  ctx.save();
  ctx.lineWidth = 1.5 * devicePixelRatio;
  for (const curve of curves) {
    ctx.strokeStyle = color(curve.color);
    for (const step of curve.bad) {
      const x = plot.valToPos(step, "x", true);
      const y = bbox.top + 2 * size;
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x - size, y - size);
      ctx.lineTo(x + size, y + size);
      ctx.moveTo(x + size, y - size);
      ctx.lineTo(x - size, y + size);
      ctx.stroke();
    }
  }
  ctx.restore();
}
