/** Frames of a GAN on 2-D points, as `frames.bin` stores them: little-endian, positions in 65,536ths of a region. */

export interface Frame {
  step: number;
  number: number;
  scoreMin: number;
  scoreMax: number;
  /** The score at which D decides; NaN if only differences of scores have a meaning. */
  threshold: number;
  gradientMax: number;
  /** x and y of each generated point, in the plane of the data. */
  points: Float32Array;
  /** x and y of the direction in which G's loss falls at each point, in parts of `gradientMax`. */
  gradients: Float32Array;
  /** D's score on a square grid, 0 to 255 between `scoreMin` and `scoreMax`; row 0 is the bottom row. */
  scores: Uint8Array;
}

export interface Frames {
  left: number;
  bottom: number;
  right: number;
  top: number;
  grid: number;
  reals: Float32Array;
  frames: Frame[];
}

const FIXED = 8 + 6 * 2 + 4 * 4 + 2 * 2;
const MAGIC = "POISEFRM";

/** The frames in `buffer`, the answer of the route: a header and records in the order of time. */
export function parseFrames(buffer: ArrayBuffer): Frames {
  const view = new DataView(buffer);
  const magic = new TextDecoder("latin1").decode(new Uint8Array(buffer, 0, Math.min(8, buffer.byteLength)));
  if (magic !== MAGIC || view.getUint16(8, true) !== 1) throw new Error("these are not frames of version 1");
  const short = (index: number): number => view.getUint16(8 + 2 * index, true);
  const [size, points, grid] = [short(1), short(2), short(3)];
  const edge = (index: number): number => view.getFloat32(20 + 4 * index, true);
  const [left, bottom, right, top] = [edge(0), edge(1), edge(2), edge(3)];
  const count = view.getUint16(36, true);
  const reals = positions(view, FIXED, count, left, bottom, right, top);
  const start = FIXED + count * 4 + 4;
  const [width, height] = [right - left, top - bottom];
  const frames: Frame[] = [];
  for (let offset = start; offset + size <= buffer.byteLength; offset += size) {
    const place = offset + 32;
    const tail = place + points * 4;
    frames.push({
      number: view.getUint32(offset + 4, true),
      step: Number(view.getBigUint64(offset + 8, true)),
      scoreMin: view.getFloat32(offset + 16, true),
      scoreMax: view.getFloat32(offset + 20, true),
      threshold: view.getFloat32(offset + 24, true),
      gradientMax: view.getFloat32(offset + 28, true),
      points: positions(view, place, points, left - width, bottom - height, right + width, top + height),
      gradients: Float32Array.from({ length: points * 2 }, (_, index) => view.getInt8(tail + index) / 127),
      scores: new Uint8Array(buffer.slice(tail + points * 2, tail + points * 2 + grid * grid)),
    });
  }
  return { left, bottom, right, top, grid, reals, frames };
}

function positions(
  view: DataView,
  offset: number,
  count: number,
  left: number,
  bottom: number,
  right: number,
  top: number,
): Float32Array {
  const result = new Float32Array(count * 2);
  for (let index = 0; index < count; index += 1) {
    result[2 * index] = left + ((right - left) * view.getUint16(offset + 4 * index, true)) / 65535;
    result[2 * index + 1] = bottom + ((top - bottom) * view.getUint16(offset + 4 * index + 2, true)) / 65535;
  }
  return result;
}

/** Whether two frames are the same one. A run that went back to an earlier step may draw another one with this number. */
export function isSame(a: Frame, b: Frame): boolean {
  return a.number === b.number && a.step === b.step && a.points.every((value, index) => value === b.points[index]);
}

/** The frames of before and newer ones, without those that appear in both. */
export function joined(old: Frames, more: Frames): Frames {
  const known = new Set(old.frames.map((frame) => frame.number));
  return { ...more, frames: [...old.frames, ...more.frames.filter((frame) => !known.has(frame.number))] };
}
