/** One frame of a GAN on 2-D points, drawn on a canvas: D's score as a heat map, real and generated points, arrows. */

import { color } from "../charts/palette";
import type { Frame, Frames } from "../data/frames";

type Rgb = readonly [number, number, number];

function rgb(name: string): Rgb {
  const hex = color(name);
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16)) as unknown as Rgb;
}

/** The colours of the heat map: from "D says generated" over the undecided middle to "D says real". */
export function heatColors(): readonly [Rgb, Rgb, Rgb] {
  return [rgb("--heat-fake"), rgb("--heat-middle"), rgb("--heat-real")];
}

function mix(from: Rgb, to: Rgb, part: number): Rgb {
  return [0, 1, 2].map((index) => from[index]! + (to[index]! - from[index]!) * part) as unknown as Rgb;
}

/** The score that is drawn in the colour of the middle. */
export function middle(frame: Frame): number {
  return Number.isNaN(frame.threshold) ? (frame.scoreMin + frame.scoreMax) / 2 : frame.threshold;
}

/** The colour of a score from -1 (generated) over 0 (undecided) to 1 (real). */
export function heat(colors: readonly [Rgb, Rgb, Rgb], side: number): Rgb {
  const part = Math.sqrt(Math.min(1, Math.abs(side)));
  return mix(colors[1], side < 0 ? colors[0] : colors[2], part);
}

/** How far a score is on either side of the middle, in parts of the largest distance in the frame. */
function sided(frame: Frame, score: number): number {
  const centre = middle(frame);
  const reach = Math.max(Math.abs(frame.scoreMax - centre), Math.abs(frame.scoreMin - centre));
  return reach > 0 ? (score - centre) / reach : 0;
}

function drawHeat(pen: CanvasRenderingContext2D, frame: Frame, grid: number, size: number): void {
  const colors = heatColors();
  const image = new ImageData(grid, grid);
  for (let row = 0; row < grid; row += 1) {
    for (let column = 0; column < grid; column += 1) {
      const byte = frame.scores[(grid - 1 - row) * grid + column] as number;
      const score = frame.scoreMin + ((frame.scoreMax - frame.scoreMin) * byte) / 255;
      const at = 4 * (row * grid + column);
      image.data.set([...heat(colors, sided(frame, score)), 255], at);
    }
  }
  const small = new OffscreenCanvas(grid, grid);
  small.getContext("2d")?.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, size, size);
}

/** Draw a frame over the whole canvas, which is square. */
export function drawPlane(canvas: HTMLCanvasElement, frames: Frames, frame: Frame | null): void {
  const pen = canvas.getContext("2d");
  if (!pen) return;
  const size = canvas.width;
  const scale = size / 480;
  const x = (value: number): number => ((value - frames.left) / (frames.right - frames.left)) * size;
  const y = (value: number): number => size - ((value - frames.bottom) / (frames.top - frames.bottom)) * size;
  pen.fillStyle = color("--heat-middle");
  pen.fillRect(0, 0, size, size);
  if (frame && frame.scoreMax > frame.scoreMin) drawHeat(pen, frame, frames.grid, size);
  drawReals(pen, frames.reals, x, y, scale);
  if (!frame) return;
  drawArrows(pen, frame, x, y, scale);
  drawPoints(pen, frame.points, x, y, scale);
}

type Map = (value: number) => number;

/** Real points are open circles. */
function drawReals(pen: CanvasRenderingContext2D, reals: Float32Array, x: Map, y: Map, scale: number): void {
  pen.strokeStyle = color("--real");
  pen.globalAlpha = 0.6;
  pen.lineWidth = 1.1 * scale;
  for (let index = 0; index < reals.length; index += 2) {
    pen.beginPath();
    pen.arc(x(reals[index]!), y(reals[index + 1]!), 2.6 * scale, 0, 2 * Math.PI);
    pen.stroke();
  }
  pen.globalAlpha = 1;
}

/** Generated points are filled squares on their corner. */
function drawPoints(pen: CanvasRenderingContext2D, points: Float32Array, x: Map, y: Map, scale: number): void {
  const half = 3.1 * scale;
  pen.fillStyle = color("--fake");
  pen.strokeStyle = color("--heat-middle");
  pen.lineWidth = 0.8 * scale;
  for (let index = 0; index < points.length; index += 2) {
    const [left, top] = [x(points[index]!), y(points[index + 1]!)];
    pen.beginPath();
    pen.moveTo(left, top - half);
    pen.lineTo(left + half, top);
    pen.lineTo(left, top + half);
    pen.lineTo(left - half, top);
    pen.closePath();
    pen.fill();
    pen.stroke();
  }
}

const LONGEST = 34;
const SHORTEST = 3;

/** An arrow from each second point, in the direction in which G's loss falls. */
function drawArrows(pen: CanvasRenderingContext2D, frame: Frame, x: Map, y: Map, scale: number): void {
  pen.strokeStyle = color("--ink");
  pen.globalAlpha = 0.5;
  pen.lineWidth = 1.1 * scale;
  pen.beginPath();
  for (let index = 0; index < frame.points.length; index += 4) {
    const [gx, gy] = [frame.gradients[index]!, -frame.gradients[index + 1]!];
    const length = Math.hypot(gx, gy) * LONGEST * scale;
    if (length < SHORTEST * scale) continue;
    const [left, top] = [x(frame.points[index]!), y(frame.points[index + 1]!)];
    const angle = Math.atan2(gy, gx);
    const [tipX, tipY] = [left + Math.cos(angle) * length, top + Math.sin(angle) * length];
    const head = Math.min(5 * scale, length / 2);
    pen.moveTo(left, top);
    pen.lineTo(tipX, tipY);
    for (const turn of [2.6, -2.6]) {
      pen.moveTo(tipX, tipY);
      pen.lineTo(tipX + Math.cos(angle + turn) * head, tipY + Math.sin(angle + turn) * head);
    }
  }
  pen.stroke();
  pen.globalAlpha = 1;
}
