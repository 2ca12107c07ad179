/** Empty states and errors: what is the case, and what to do. */

import { RequestError } from "../data/api";
import { h, type Child } from "../dom";

export function emptyState(title: string, ...children: Child[]): HTMLElement {
  return h("div", "empty", h("h2", {}, title), ...children);
}

/** What stands in a list while the server looks into the folder. */
function reading(): HTMLElement {
  return h("p", "muted", "Reading the runs …");
}

/** What stands beside a list from which something may be missing. */
export function incompleteNote(): HTMLElement {
  return h("p", "muted", "Only the first 10,000 folders were searched; give poise web a folder nearer to the runs.");
}

/** What stands in place of a list that is empty: `none`, or why it may be. */
export function nothing(store: { loaded: boolean; complete: boolean }, none: () => HTMLElement): HTMLElement {
  if (!store.loaded) return reading();
  return store.complete ? none() : incompleteNote();
}

/** What is said of a run, study or ladder of which there is no folder any more. */
export function goneNote(kind: string): HTMLElement {
  return h("span", { class: "reason", attrs: { role: "status" } }, `This ${kind} was moved or removed; the page shows what it was.`);
}

/** A question to ask after every change of `cards`: whether there was one of this id, which is gone. A new one may not be there yet. */
export function departure(cards: ReadonlyMap<string, unknown>, id: string): () => boolean {
  let seen = false;
  return () => {
    const isThere = cards.has(id);
    seen ||= isThere;
    return seen && !isThere;
  };
}

export function commandLine(text: string): HTMLElement {
  return h("pre", { class: "command", attrs: { tabindex: 0, "aria-label": "command" } }, text);
}

/** Why a view can't be shown, in words for its user. */
export class Unavailable extends Error {
  constructor(
    readonly title: string,
    message: string,
  ) {
    super(message);
  }
}

/** Whether there is nothing of the id that was asked for. */
export function isMissing(error: unknown): boolean {
  return error instanceof RequestError && error.status === 404;
}

/** What to show instead of a view whose data could not be fetched. */
export function failureState(error: unknown): HTMLElement {
  const missing = "Nothing here has this id: the folder may have been moved or removed.";
  const isTold = error instanceof RequestError || error instanceof Unavailable;
  const message = isTold ? error.message : "The server cannot be reached. This page tries again by itself.";
  const title = error instanceof Unavailable ? error.title : isMissing(error) ? "Not found" : "This could not be shown";
  return h("div", "empty", h("h1", {}, title), h("p", {}, isMissing(error) ? missing : message), home());
}

function home(): HTMLElement {
  return h("p", {}, h("a", { attrs: { href: "#/" } }, "All runs"));
}
