/** One ladder: its rungs side by side, with their figures and images. */

import { fetchLadder, rungImageAddress } from "../data/api";
import type { Ladder, Rung } from "../data/types";
import { h, refill } from "../dom";
import { figure, heading, words } from "../format";
import { departure, goneNote } from "../parts/notice";
import { headings, row, scrollTable } from "../parts/table";
import type { View } from "./view";

/** The images of a rung, by their name: their heading and what they show. */
const KINDS: Record<string, readonly [string, string]> = {
  samples: ["Samples", "Of latents from the prior."],
  fitted: ["Samples from fitted codes", "Of latents from a Gaussian that is fitted to the codes of training images."],
  rebuilt: ["Reconstructions", "Rows of real images, each above the row of their reconstructions."],
  lerp: ["Linear interpolation", "Each row goes from one code to another, or without an encoder from one latent to another."],
  slerp: ["Spherical interpolation", "The same codes and latents, at a length between theirs."],
};

export const ladderView: View = async ({ store, root, signal, title }, id) => {
  let ladder = await fetchLadder(id, signal);
  title(ladder.name);
  const isGone = departure(store.ladders, id);
  let told = "";
  const show = (): void => {
    const now = JSON.stringify([ladder.tag, isGone()]);
    if (now === told) return;
    told = now;
    refill(root, contents(ladder, isGone()));
  };
  store.events.watch([]);
  const follow = (): void => {
    show();
    if ((store.ladders.get(id)?.tag ?? ladder.tag) === ladder.tag) return;
    fetchLadder(id, signal).then((newer) => {
      ladder = newer;
      show();
    }, () => undefined);
  };
  store.onChange(follow, signal);
  follow();
};

function contents(ladder: Ladder, isGone: boolean): HTMLElement[] {
  const kinds = Object.keys(KINDS).filter((name) => ladder.rungs.some((rung) => rung.images.includes(name)));
  const head = h(
    "header",
    "run-head",
    h("p", "crumbs", h("a", { attrs: { href: "#/ladders" } }, "Ladders")),
    h("h1", {}, ladder.name),
    isGone ? goneNote("ladder") : null,
    h("ul", "ladder-runs", ladder.rungs.map((rung) => h("li", {}, h("a", { attrs: { href: `#/run/${rung.run}` } }, rung.name)))),
  );
  return [head, ...kinds.map((name) => imagesOf(ladder, name)), figuresTable(ladder)];
}

/** The images of one kind, a rung beside the other. */
function imagesOf(ladder: Ladder, name: string): HTMLElement {
  const [text, about] = KINDS[name] as readonly [string, string];
  const figures = ladder.rungs.map((rung) => h("figure", "grid-frame", h("figcaption", {}, rung.name), imageOf(ladder, rung, name)));
  return h("section", "study-panel", h("div", {}, h("h2", {}, text), h("p", "muted", about)), h("div", "rungs", figures));
}

function imageOf(ladder: Ladder, rung: Rung, name: string): HTMLElement {
  const index = rung.images.indexOf(name);
  if (index < 0) return h("p", "muted rung-none", "none");
  const attrs = { src: rungImageAddress(ladder.id, rung.run, name, rung.image_tags[index] as string), alt: `${rung.name}: ${words(name)}`, loading: "lazy", decoding: "async" };
  return h("img", { class: "grid-image", attrs });
}

function figuresTable({ rungs }: Ladder): HTMLElement {
  const names = [...new Set(rungs.flatMap((rung) => Object.keys(rung.values)))];
  const rows = names.map((name) => row(heading(name), ...rungs.map((rung) => h("td", "figures", figure(rung.values[name])))));
  return h(
    "section",
    "study-panel",
    h("h2", {}, "Measures"),
    names.length
      ? scrollTable("Measures of the models", "study-runs", headings("Measure", ...rungs.map((rung) => rung.name)), h("tbody", {}, rows))
      : h("p", "muted", "They appear when the models have been compared."),
  );
}
