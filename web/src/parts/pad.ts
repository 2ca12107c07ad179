/** A square on which a density is drawn: with the mouse, a finger, or the arrow keys and the space bar. */

import { color } from "../charts/palette";
import { h } from "../dom";

const SIDE = 64;
const PIXELS = 256;
const BRUSH = 2.2;

export class Pad {
  readonly canvas = h("canvas", {
    class: "pad",
    attrs: {
      width: PIXELS,
      height: PIXELS,
      tabindex: 0,
      role: "application",
      "aria-label": "Density: draw with the pointer, or move with the arrow keys and draw with the space bar",
    },
  });
  private readonly density = new Float32Array(SIDE * SIDE);
  private readonly place: [number, number] = [SIDE / 2, SIDE / 2];
  private last: [number, number] | null = null;

  constructor() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.last = this.cell(event);
      this.stroke(this.last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.stroke(this.cell(event));
    });
    canvas.addEventListener("pointerup", () => (this.last = null));
    canvas.addEventListener("pointercancel", () => (this.last = null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => this.draw());
    this.draw();
  }

  get isEmpty(): boolean {
    return this.density.every((value) => value < 1 / 255);
  }

  clear(): void {
    this.density.fill(0);
    this.draw();
  }

  /** 64 x 64 bytes, the top row first, as base64. */
  encoded(): string {
    return btoa(String.fromCharCode(...Array.from(this.density, (value) => Math.round(Math.min(1, value) * 255))));
  }

  /** Show a density of before, as `encoded` wrote it. */
  show(encoded: string): void {
    this.density.set(Array.from(atob(encoded), (one) => one.charCodeAt(0) / 255));
    this.draw();
  }

  draw(): void {
    const pen = this.canvas.getContext("2d");
    if (!pen) return;
    const size = PIXELS / SIDE;
    pen.fillStyle = color("--heat-middle");
    pen.fillRect(0, 0, PIXELS, PIXELS);
    pen.fillStyle = color("--real");
    this.density.forEach((value, index) => {
      if (value < 1 / 255) return;
      pen.globalAlpha = Math.min(1, value);
      pen.fillRect((index % SIDE) * size, Math.floor(index / SIDE) * size, size, size);
    });
    pen.globalAlpha = 1;
    if (document.activeElement !== this.canvas) return;
    pen.strokeStyle = color("--ink");
    pen.strokeRect((this.place[0] - 1.5) * size, (this.place[1] - 1.5) * size, 4 * size, 4 * size);
  }

  private cell(event: PointerEvent): [number, number] {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  /** Dab along the way from the last place, so that a quick movement leaves no holes. */
  private stroke(to: [number, number]): void {
    const from = this.last ?? to;
    const parts = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let part = 1; part <= parts; part += 1) {
      this.dab(from[0] + ((to[0] - from[0]) * part) / parts, from[1] + ((to[1] - from[1]) * part) / parts);
    }
    this.last = to;
    this.draw();
  }

  private dab(x: number, y: number): void {
    const reach = Math.ceil(BRUSH * 2);
    for (let row = Math.max(0, Math.floor(y) - reach); row < Math.min(SIDE, y + reach); row += 1) {
      for (let column = Math.max(0, Math.floor(x) - reach); column < Math.min(SIDE, x + reach); column += 1) {
        const squared = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2;
        const index = row * SIDE + column;
        this.density[index] = Math.min(1, (this.density[index] as number) + 0.3 * Math.exp(-squared / BRUSH ** 2));
      }
    }
  }

  private key(event: KeyboardEvent): void {
    const moves: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (move) {
      this.place[0] = Math.min(SIDE - 1, Math.max(0, this.place[0] + move[0] * (event.shiftKey ? 6 : 2)));
      this.place[1] = Math.min(SIDE - 1, Math.max(0, this.place[1] + move[1] * (event.shiftKey ? 6 : 2)));
    } else if (event.key === " ") {
      for (let time = 0; time < 3; time += 1) this.dab(this.place[0] + 0.5, this.place[1] + 0.5);
    } else return;
    event.preventDefault();
    this.draw();
  }
}
