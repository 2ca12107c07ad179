/** One ladder: its rungs side by side, with their figures and images. */

import { fetchLadder, rungImageAddress } from "../data/api";
import type { Ladder, Rung } from "../data/types";
import { h } from "../dom";
import { figure } from "../format";
import type { View } from "./view";

export const ladderView: View = async ({ store, root, signal, title }, id) => {
  const ladder = await fetchLadder(id, signal);
  title(ladder.name);
  store.events.watch([]);
  root.replaceChildren(
    h("header", "run-head", h("p", "crumbs", h("a", { attrs: { href: "#/ladders" } }, "Ladders")), h("h1", {}, ladder.name)),
    h("div", "rungs", ladder.rungs.map((rung) => rungColumn(ladder, rung))),
    figuresTable(ladder),
  );
};

function rungColumn(ladder: Ladder, rung: Rung): HTMLElement {
  const images = rung.images.map((name) => {
    const words = name.replace(/\.[a-z]+$/, "").replaceAll(/[-_]/g, " ");
    const image = h("img", { class: "grid-image", attrs: { src: rungImageAddress(ladder.id, rung.run, name), alt: `${rung.name}: ${words}`, loading: "lazy", decoding: "async" } });
    return h("figure", "grid-frame", image, h("figcaption", "muted", words));
  });
  return h("section", "rung", h("h2", {}, h("a", { attrs: { href: `#/run/${rung.run}` } }, rung.name)), rung.recipe === rung.name ? null : h("p", "muted", rung.recipe), images.length ? images : h("p", "muted", "No images yet."));
}

function figuresTable({ rungs }: Ladder): HTMLElement {
  const names = [...new Set(rungs.flatMap((rung) => Object.keys(rung.values)))];
  if (!names.length) return h("p", "muted", "The figures appear when the models are compared.");
  return h(
    "section",
    "study-panel",
    h("h2", {}, "Figures"),
    h(
      "div",
      { class: "table-scroll", attrs: { tabindex: 0, role: "region", "aria-label": "Figures of the models" } },
      h(
        "table",
        "facts study-runs",
        h("caption", "hidden", "Figures of the models"),
        h("thead", {}, h("tr", {}, h("th", { attrs: { scope: "col" } }, "Figure"), rungs.map((rung) => h("th", { attrs: { scope: "col" } }, rung.name)))),
        h("tbody", {}, names.map((name) => h("tr", {}, h("th", { attrs: { scope: "row" } }, name.replaceAll("_", " ")), rungs.map((rung) => h("td", "figures", figure(rung.values[name])))))),
      ),
    ),
  );
}
