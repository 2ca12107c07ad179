/** The studies and the ladders in the folder. */

import { h, fill } from "../dom";
import { ago, count } from "../format";
import { commandLine, emptyState } from "../parts/notice";
import type { View } from "./view";

export const studiesView: View = ({ store, root, signal, title }) => {
  title("Studies");
  store.events.watch([]);
  function update(): void {
    const studies = [...store.studies.values()].sort((a, b) => b.changed - a.changed);
    const body = studies.length
      ? h(
          "ul",
          "plain-list",
          studies.map((study) =>
            h(
              "li",
              {},
              h("a", { class: "plain-name", attrs: { href: `#/study/${study.id}` } }, study.name),
              h("span", "figures", study.planned ? `${count(study.done)} of ${count(study.planned)} runs` : ""),
              h("span", "muted", study.reason ?? study.state),
              h("span", "figures muted", ago(study.changed)),
            ),
          ),
        )
      : emptyState(
          "No studies yet",
          h("p", {}, "A study trains a recipe with and without each tip over paired seeds, and says which tips help. Start one from a plan:"),
          commandLine("poise study plan.toml"),
        );
    fill(root, h("header", "list-head", h("h1", {}, "Studies")), body);
  }
  store.onChange(update, signal);
  update();
};

export const laddersView: View = ({ store, root, signal, title }) => {
  title("Ladders");
  store.events.watch([]);
  function update(): void {
    const ladders = [...store.ladders.values()].sort((a, b) => b.changed - a.changed);
    const body = ladders.length
      ? h(
          "ul",
          "plain-list",
          ladders.map((ladder) =>
            h(
              "li",
              {},
              h("a", { class: "plain-name", attrs: { href: `#/ladder/${ladder.id}` } }, ladder.name),
              h("span", "muted", ladder.reason ?? ""),
              h("span", "figures muted", ago(ladder.changed)),
            ),
          ),
        )
      : emptyState(
          "No ladders yet",
          h("p", {}, "A ladder trains an autoencoder, a VAE, a GAN and a hybrid with one decoder, and shows them side by side. Start one:"),
          commandLine("poise ladder"),
        );
    fill(root, h("header", "list-head", h("h1", {}, "Ladders")), body);
  }
  store.onChange(update, signal);
  update();
};
