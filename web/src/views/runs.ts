/** The list of runs: newest first, with a filter, and a selection for comparing. Runs of studies are shown if asked for. */

import { gridAddress } from "../data/api";
import type { Card, State } from "../data/types";
import { fill, h, place, refill, renew, setText } from "../dom";
import { ago, count, counted, rate, shapeText } from "../format";
import { levelIcon } from "../parts/icons";
import { commandLine, emptyState, incompleteNote, nothing } from "../parts/notice";
import { bestText, progress, stateMark } from "../parts/state";
import { Selection } from "./selection";
import type { View } from "./view";

const PAGE = 100;
const STATES: (State | "")[] = ["", "running", "done", "stopped", "failed", "interrupted", "damaged"];

/** What the list was filtered by last, for as long as the page is open. */
const wanted = { text: "", state: "", ofStudies: false };

/** True if every word of `text` occurs in what the list shows of a run. */
function matches(card: Card, text: string, state: string): boolean {
  if (state && card.state !== state) return false;
  const shown = [card.name, card.recipe, card.data, card.state].join(" ").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => shown.includes(word));
}

export const runsView: View = ({ store, root, signal, title }) => {
  title("Runs");
  let limit = PAGE;
  const rows = new Map<string, { element: HTMLElement; told: string }>();
  const filter = h("input", { attrs: { type: "search", placeholder: "Filter by name, recipe or data", "aria-label": "Filter runs", spellcheck: false, value: wanted.text } });
  const state = h("select", { attrs: { "aria-label": "State" } });
  state.append(...STATES.map((one) => h("option", { attrs: { value: one, selected: one === wanted.state } }, one || "every state")));
  const ofStudies = h("input", { attrs: { type: "checkbox", checked: wanted.ofStudies } });
  const studyTally = h("span", "figures");
  const studyChoice = h("label", { class: "choice", attrs: { hidden: true } }, ofStudies, studyTally);
  const tally = h("span", { class: "figures muted", attrs: { role: "status" } });
  const list = h("ul", "run-list");
  const more = h("button", { class: "quiet more", attrs: { type: "button" }, on: { click: showMore } });
  const selection = new Selection(() => {
    for (const box of list.querySelectorAll<HTMLInputElement>("input[type=checkbox]")) box.checked = false;
  });
  const none = h("p", { class: "muted", attrs: { hidden: true } });
  const note = h("div");
  const empty = h("div");
  const body = h("div");
  const bodyHead = h(
    "div",
    { class: "run-columns-head", attrs: { "aria-hidden": "true" } },
    ["", "Run", "State", "Images/s", "Best measure", "Alarms", "Changed"].map((one) => h("span", {}, one)),
  );
  for (const control of [filter, state, ofStudies]) {
    control.addEventListener("input", () => {
      Object.assign(wanted, { text: filter.value, state: state.value, ofStudies: ofStudies.checked });
      limit = PAGE;
      update();
    });
  }
  const filters = h("div", "filters", filter, state, studyChoice, tally);
  root.replaceChildren(h("header", "list-head", h("h1", {}, "Runs"), filters), body, selection.bar);

  /** The row of a run, of which what has changed is replaced. */
  function row(card: Card): HTMLElement {
    const told = JSON.stringify(card);
    const known = rows.get(card.id);
    if (known?.told === told) return known.element;
    const fresh = makeRow(card, selection);
    const element = known?.element ?? fresh;
    if (known) renew(element, fresh);
    rows.set(card.id, { element, told });
    return element;
  }

  function showMore(): void {
    limit += PAGE;
    update();
  }

  function update(): void {
    const every = store.newest();
    refill(note, store.complete ? null : incompleteNote());
    selection.keep(store.runs);
    filters.hidden = !every.length;
    if (!every.length) {
      refill(empty, nothing(store, () => noRuns(store.directory)));
      if (!body.contains(empty)) fill(body, empty);
      return;
    }
    const all = wanted.ofStudies ? every : every.filter((card) => card.study === null);
    const studyRuns = every.filter((card) => card.study !== null).length;
    studyChoice.hidden = !studyRuns;
    setText(studyTally, `${counted(studyRuns, "run")} of studies`);
    const found = all.filter((card) => matches(card, wanted.text, wanted.state));
    setText(tally, found.length === all.length ? counted(all.length, "run") : `${count(found.length)} of ${counted(all.length, "run")}`);
    place(list, found.slice(0, limit).map(row));
    if (!body.contains(list)) fill(body, note, bodyHead, list, none, more);
    more.hidden = found.length <= limit;
    setText(more, `Show ${count(Math.min(PAGE, found.length - limit))} more`);
    list.hidden = bodyHead.hidden = !found.length;
    none.hidden = found.length > 0;
    setText(none, all.length ? "No run matches." : "All runs here belong to studies.");
  }

  /** Times such as "5 min ago" grow old without an event. */
  const clock = window.setInterval(() => {
    for (const time of list.querySelectorAll<HTMLTimeElement>("time")) setText(time, ago(Number(time.dataset["changed"])));
  }, 20_000);
  signal.addEventListener("abort", () => window.clearInterval(clock));
  store.onChange(update, signal);
  store.events.watch([]);
  update();
};

function makeRow(card: Card, selection: Selection): HTMLElement {
  const box = h("input", { attrs: { type: "checkbox", "aria-label": `Select ${card.name}` } });
  box.checked = selection.has(card.id);
  box.addEventListener("change", () => selection.set(card.id, box.checked));
  const about = [card.recipe, card.data, shapeText(card.shape)].filter((part, index, all) => part && all.indexOf(part) === index);
  const changed = h("time", { class: "figures muted", attrs: { datetime: new Date(card.changed * 1000).toISOString() } }, ago(card.changed));
  changed.dataset["changed"] = String(card.changed);
  return h(
    "li",
    "run-row",
    h("label", "run-select", box),
    h("a", { class: `run-thumb${isPlane(card) ? "" : " enlarged"}`, attrs: { href: `#/run/${card.id}`, tabindex: -1, "aria-hidden": "true" } }, thumbnail(card)),
    h("div", "run-name", h("a", { attrs: { href: `#/run/${card.id}` } }, card.name), h("span", "muted", about.join(" · ")), card.reason ? h("span", "reason", card.reason) : null),
    h("div", "run-state", stateMark(card.state), progress(card.step, card.steps, card.name)),
    h(
      "div",
      "run-numbers",
      h("div", `run-speed figures${card.images_per_second ? "" : " none"}`, card.images_per_second ? rate(card.images_per_second) : "–", h("span", "unit", " images/s")),
      h("div", `run-best figures${card.best ? "" : " none"}`, bestText(card.best)),
      h("div", `run-alarms${card.alarms ? "" : " none"}`, card.alarms ? h("span", "level-warning", levelIcon("warning"), counted(card.alarms, "alarm")) : "–"),
    ),
    h("div", "run-changed", changed),
  );
}

/** True if the samples are points, so that all of a grid is one picture. */
const isPlane = (card: Card): boolean => card.shape?.length === 1;

function thumbnail(card: Card): HTMLElement | null {
  if (card.last_grid === null || card.last_grid_tag === null) return null;
  return h("img", { attrs: { src: gridAddress(card.id, card.last_grid, card.last_grid_tag), alt: "", loading: "lazy", decoding: "async" } });
}

function noRuns(directory: string): HTMLElement {
  return emptyState(
    "No runs yet",
    h("p", {}, "This page shows every run in the folder ", h("code", {}, directory || "runs"), " as soon as it begins. Start one in another terminal:"),
    commandLine("poise train ring"),
  );
}
