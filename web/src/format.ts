/** Numbers and times as text. All figures of the page are written here. */

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12,345: a count. */
export function count(value: number): string {
  return GROUPED.format(value);
}

/** 12,345.6: a number with at most so many decimal places. */
function grouped(value: number, places: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: places });
}

/** 12,345 or 0.125: how many of something there are per second. */
export function rate(value: number): string {
  return value < 10 ? figure(value, 3) : count(value);
}

/** "1 step", "2 steps". */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** 1.25e7: a number with a power of ten and at most so many decimal places. */
function powerOfTen(value: number, places: number): string {
  const text = value.toExponential(Math.min(100, Math.max(0, places)));
  return text.replace(/(\.\d*?)0*e/, "$1e").replace(".e", "e").replace("e+", "e").replaceAll("-", "−");
}

/** A figure with `digits` significant digits, without exponents where they can be avoided; a dash for null. */
export function figure(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return powerOfTen(value, digits - 1);
  const places = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  const text = size >= 1000 ? grouped(value, places) : Number(value.toFixed(Math.min(places, 10))).toString();
  return text.replace("-", "−");
}

/** 1:02:03 or 2:03: a duration in seconds. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  const rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** "just now", "5 min ago", then the date: when something changed, in seconds since 1970. */
export function ago(changed: number, now = Date.now() / 1000): string {
  const seconds = Math.max(0, now - changed);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 7 * 86400) return counted(Math.floor(seconds / 86400), "day") + " ago";
  return new Date(changed * 1000).toISOString().slice(0, 10);
}

/** "2 points" or "1 × 32 × 32": the shape of a sample. */
export function shapeText(shape: number[] | null | undefined): string {
  if (!shape || shape.length === 0) return "";
  return shape.length === 1 ? `${shape[0]}-D points` : shape.slice(-2).join(" × ");
}

const ABBREVIATIONS = new Set(["fid", "kid", "ndb", "kl", "elbo", "pca", "gan"]);

/** The words of a name such as `reverse_kl`: "reverse KL". */
export function words(name: string): string {
  const parts = name.split(/[_/ ]/).filter(Boolean);
  return parts.map((part) => (ABBREVIATIONS.has(part) ? part.toUpperCase() : part)).join(" ");
}

/** The words of a name, the first with a capital: "Reverse KL". */
export function heading(name: string): string {
  const text = words(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The name of a tip, such as "averaged weights". */
export function tipName(tip: { name: string }): string {
  return tip.name.replaceAll("-", " ");
}

/** The longest label that fits beside a plot, in characters. */
const WIDEST = 7;

/** The decimal places of the multiples of a distance of ticks, which is 1, 2, 2.5 or 5 times a power of ten. */
function placesOf(distance: number): number {
  const places = Math.max(0, Math.ceil(-Math.log10(distance) - 1e-9));
  const whole = distance * 10 ** places;
  return Math.min(100, places + (Math.abs(whole - Math.round(whole)) < 1e-6 ? 0 : 1));
}

/** A number on an axis, with as many decimal places as the distance of two ticks needs to tell them apart. */
export function tickText(value: number, distance: number): string {
  const places = placesOf(distance);
  const text = value.toFixed(places);
  const short = places ? text.replace(/\.?0+$/, "") : count(Number(text));
  return short === "-0" ? "0" : short.replace("-", "−");
}

/** The same with a power of ten: 1.25e−6. */
function powerText(value: number, distance: number): string {
  const places = placesOf(distance);
  const rounded = Number(value.toFixed(places));
  return rounded === 0 ? "0" : powerOfTen(rounded, Math.floor(Math.log10(Math.abs(rounded)) + 1e-9) + places);
}

/** Labels of a y axis, no two of them equal. If they would be too long, `base` is what is to be added to each of them. */
export function axisTexts(ticks: number[], distance: number): { texts: string[]; base: string } {
  const fit = (texts: string[]): boolean => texts.every((text) => text.length <= WIDEST);
  const plain = ticks.map((tick) => tickText(tick, distance));
  if (fit(plain)) return { texts: plain, base: "" };
  const powers = ticks.map((tick) => powerText(tick, distance));
  if (fit(powers)) return { texts: powers, base: "" };
  const first = ticks[0] ?? 0;
  const unit = 10 ** Math.ceil(Math.log10((ticks.at(-1) ?? first) - first || distance) - 1e-9);
  const base = Math.floor(first / unit + 1e-9) * unit;
  if (base === 0) return { texts: powers, base: "" };
  const { texts } = axisTexts(ticks.map((tick) => tick - base), distance);
  const [told, power] = [tickText(base, unit), powerText(base, unit)];
  return { texts, base: told.length <= power.length + 1 ? told : power };
}

/** The significant digits with which values between these two can be told apart: three, or more if they are close together. */
export function digitsOf(low: number, high: number): number {
  const size = Math.max(Math.abs(low), Math.abs(high));
  return high > low ? Math.min(7, Math.max(3, Math.floor(Math.log10(size / (high - low))) + 2)) : 3;
}

/** A step on an axis: 12.5k or 1.25M where that has few digits at this distance of two ticks, else 123,450. */
export function stepText(step: number, distance: number): string {
  if (step >= 1e6 && distance >= 1e3) return `${tickText(step / 1e6, distance / 1e6)}M`;
  if (step >= 1e4 && step < 1e6 && distance >= 100) return `${tickText(step / 1e3, distance / 1e3)}k`;
  return count(step);
}

/** A value of a recipe as one line. */
export function valueText(value: unknown): string {
  if (typeof value === "string") return value;
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.length ? value.map(valueText).join(", ") : "none";
  if (typeof value === "object") {
    return Object.entries(value)
      .map(([key, inner]) => `${key} = ${valueText(inner)}`)
      .join(", ");
  }
  return String(value);
}
