/** The recipe of a run as a table, with the tips that it follows, and the run's information. */

import type { Run, Tip } from "../data/types";
import { h, type Child } from "../dom";
import { count, duration, tipName, valueText } from "../format";
import { openTip } from "./explain";

const HEADINGS: Record<string, string> = {
  data: "Data",
  latent: "Latents",
  "network.g": "Network of G",
  "network.d": "Network of D",
  "network.e": "Encoder",
  objective: "Objective",
  "optimizer.g": "Optimiser of G",
  "optimizer.d": "Optimiser of D",
  tempo: "Tempo",
  tricks: "Tricks",
  measure: "Measures",
  monitor: "Monitor",
  log: "Log",
  init: "Initial weights",
};

/** The part of a dotted path that names its table: two words for players, one for the others. */
function tableOf(path: string): string {
  const words = path.split(/[.[]/);
  const [first = "", second = ""] = words;
  if (words.length > 2 && (first === "network" || first === "optimizer")) return `${first}.${second}`;
  return words.length > 1 ? first : "";
}

function byTable(recipe: Record<string, unknown>): Map<string, [string, unknown][]> {
  const tables = new Map<string, [string, unknown][]>([["", []]]);
  for (const [path, value] of Object.entries(recipe)) {
    if (path === "name" || path === "about") continue;
    const table = tableOf(path);
    const list = tables.get(table) ?? [];
    tables.set(table, list);
    list.push([path.slice(table ? table.length : 0).replace(/^\./, ""), value]);
  }
  return tables;
}

/** A button per tip that this path of the recipe follows; `used` gets those that were placed. */
function tipsAt(tips: Tip[], path: string, used: Set<Tip>): Child {
  const found = tips.filter((tip) => !used.has(tip) && tip.path !== undefined && isWithin(path, tip.path));
  found.forEach((tip) => used.add(tip));
  return found.map((tip) => chip(tip, false));
}

/** True for `tricks[1].kind` within `tricks[1]`, not for `tricks[10].kind`. */
function isWithin(path: string, part: string): boolean {
  return path === part || path.startsWith(`${part}.`) || path.startsWith(`${part}[`);
}

function chip(tip: Tip, isNamed: boolean): HTMLElement {
  const name = tipName(tip);
  const attrs = { type: "button", title: `${tip.id} ${name}`, "aria-label": isNamed ? null : `${tip.id} ${name}` };
  return h("button", { class: "chip", attrs, on: { click: () => openTip(tip) } }, h("span", "chip-id", tip.id), isNamed ? ` ${name}` : null);
}

/** The tables of the recipe, one per part; the caller lays them out in columns. */
export function recipeTables(run: Run): HTMLElement {
  const used = new Set<Tip>();
  const tables = [...byTable(run.recipe)].map(([table, rows]) =>
    facts(
      HEADINGS[table] ?? (table || "Training"),
      rows.map(([key, value]) => {
        const path = table + (table && !key.startsWith("[") ? "." : "") + key;
        const label = key.replaceAll("_", " ").replace(/^\[(\d+)\]\.?/, (_, index) => `${Number(index) + 1}. `);
        return [label, [valueText(value), tipsAt(run.tips, path, used)]];
      }),
    ),
  );
  return h("div", "facts-columns", tables);
}

export function tipChips(run: Run): HTMLElement {
  return run.tips.length ? h("p", "chips", unique(run.tips).map((tip) => chip(tip, true))) : h("p", "muted", "The recipe follows no tip of the catalogue.");
}

function unique(tips: Tip[]): Tip[] {
  return tips.filter((tip, index) => tips.findIndex((one) => one.id === tip.id) === index);
}

export function tomlText(run: Run): HTMLElement {
  return h("details", "toml", h("summary", {}, "recipe.toml"), h("pre", { attrs: { tabindex: 0, "aria-label": "recipe.toml" } }, run.toml));
}

function facts(heading: string, rows: [string, Child][]): HTMLElement {
  const row = ([key, value]: [string, Child]): HTMLElement => h("tr", {}, h("th", { attrs: { scope: "row" } }, key), h("td", {}, value));
  return h("table", "facts", h("caption", {}, heading), h("tbody", {}, rows.map(row)));
}

function flat(value: unknown): string {
  return typeof value === "number" && Number.isInteger(value) ? count(value) : valueText(value);
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || (typeof value === "object" && Object.keys(value).length === 0);
}

/** Device, versions, data and sizes of the networks. */
export function informationTables(run: Run): HTMLElement {
  const { versions, data, parameters, ...machine } = run.info;
  const rows = (table: unknown, name = (key: string): string => key.replaceAll("_", " ")): [string, Child][] =>
    Object.entries((table ?? {}) as object)
      .filter(([, value]) => !isEmpty(value))
      .map(([key, value]) => [name(key), flat(value)]);
  const tables: [string, [string, Child][]][] = [
    ["Machine", [["duration", duration(run.seconds)], ...rows(machine)]],
    ["Versions", rows(versions)],
    ["Data", rows(data)],
    ["Parameters", rows(parameters, (key) => key.toUpperCase())],
  ];
  return h("div", "facts-columns", tables.filter(([, list]) => list.length).map(([heading, list]) => facts(heading, list)));
}
