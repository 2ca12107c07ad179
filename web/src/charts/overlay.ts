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

/** A dashed horizontal line with its meaning at the right end. */
export function drawReferences(plot: uPlot, references: ReferenceLine[]): void {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.lineWidth = ratio;
  ctx.setLineDash([2 * ratio, 3 * ratio]);
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textAlign = "right";
  ctx.textBaseline = "bottom";
  for (const { value, label } of references) {
    const y = Math.round(plot.valToPos(value, "y", true)) + 0.5;
    if (!(y >= bbox.top && y <= bbox.top + bbox.height)) continue;
    ctx.strokeStyle = color("--muted");
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    const x = bbox.left + bbox.width - 4 * ratio;
    ctx.setLineDash([]);
    ctx.lineWidth = 4 * ratio;
    ctx.lineJoin = "round";
    ctx.strokeStyle = color("--page");
    ctx.strokeText(label, x, y - 2 * ratio);
    ctx.fillStyle = color("--muted");
    ctx.fillText(label, x, y - 2 * ratio);
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.lineWidth = ratio;
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
