/** The studies and the ladders in the folder. */

import type { Store } from "../data/store";
import { fill, h, place, refill, renew, type Child } from "../dom";
import { ago } from "../format";
import { commandLine, emptyState, incompleteNote, nothing } from "../parts/notice";
import { progress, stateMark } from "../parts/state";
import type { Context, View } from "./view";

interface Listed {
  id: string;
  name: string;
  changed: number;
  reason: string | null;
}

/** A list, newest first, that is kept up to date. */
function list<T extends Listed>(context: Context, heading: string, kind: string, of: (store: Store) => Iterable<T>, facts: (one: T) => Child, none: () => HTMLElement): void {
  const { store, root, signal, title } = context;
  title(heading);
  store.events.watch([]);
  const rows = new Map<string, HTMLElement>();
  const rowList = h("ul", "plain-list");
  const note = h("div");
  const empty = h("div");
  const body = h("div");
  root.replaceChildren(h("header", "list-head", h("h1", {}, heading)), body);

  function entry(one: T): HTMLElement {
    const link = h("a", { class: "plain-name", attrs: { href: `#/${kind}/${one.id}` } }, one.name);
    const name = h("div", "plain-title", link, one.reason ? h("span", "reason", one.reason) : null);
    const fresh = h("li", {}, name, facts(one), h("span", "figures muted plain-changed", ago(one.changed)));
    const known = rows.get(one.id);
    if (known) renew(known, fresh);
    else rows.set(one.id, fresh);
    return known ?? fresh;
  }

  function update(): void {
    const found = [...of(store)].sort((a, b) => b.changed - a.changed);
    place(rowList, found.map(entry));
    refill(note, store.complete ? null : incompleteNote());
    refill(empty, found.length ? null : nothing(store, none));
    const [shown, ...others] = found.length ? [note, rowList] : [empty];
    if (!body.contains(shown)) fill(body, shown, ...others);
  }
  store.onChange(update, signal);
  update();
}

export const studiesView: View = (context) =>
  list(
    context,
    "Studies",
    "study",
    (store) => store.studies.values(),
    (study) => h("div", "run-state", stateMark(study.state), study.planned ? progress(study.done, study.planned, study.name, "runs") : null),
    () =>
      emptyState(
        "No studies yet",
        h("p", {}, "A study trains a recipe with and without each tip over paired seeds, and says which tips help. Start one from a plan:"),
        commandLine("poise study plan.toml"),
      ),
  );

export const laddersView: View = (context) =>
  list(
    context,
    "Ladders",
    "ladder",
    (store) => store.ladders.values(),
    () => null,
    () =>
      emptyState(
        "No ladders yet",
        h("p", {}, "A ladder trains an autoencoder, a VAE, a GAN and a hybrid with one decoder, and shows them side by side. Start one:"),
        commandLine("poise ladder"),
      ),
  );
