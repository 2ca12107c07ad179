/** One study: its verdicts as a forest plot and a table, and its runs, which the cells lead to. */

import { ForestScale } from "../charts/forest";
import { fetchStudy } from "../data/api";
import type { Effect, Study, StudyRun } from "../data/types";
import { h, refill } from "../dom";
import { count, figure, words } from "../format";
import { tipButton, verdictMark } from "../parts/explain";
import { departure, goneNote } from "../parts/notice";
import { progress, stateMark } from "../parts/state";
import { headings, row, scrollTable } from "../parts/table";
import type { View } from "./view";

interface Panel {
  base: string;
  measure: string;
  better: string;
  effects: Effect[];
}

/** One panel per base and measure: effects in different units share no axis. */
function panels(study: Study): Panel[] {
  return study.bases.flatMap((base) =>
    base.measures.map(({ name, better }) => ({
      base: base.name,
      measure: name,
      better,
      effects: study.report.tips.filter((one) => one.measure === name && one.data === base.name),
    })),
  );
}

export const studyView: View = async ({ store, root, signal, title }, id) => {
  let study = await fetchStudy(id, signal);
  title(study.name);
  const choice = h("select", { attrs: { "aria-label": "Base and measure" } });
  const forest = h("div");
  const runs = h("div");
  const head = h("header", "run-head");
  const isGone = departure(store.studies, id);

  function show(): void {
    const all = panels(study);
    const chosen = choice.value;
    refill(choice, all.map((one, index) => h("option", { attrs: { value: index } }, `${one.base}: ${words(one.measure)}`)));
    choice.value = chosen || "0";
    const panel = all[Number(choice.value)] ?? all[0];
    refill(head, h("p", "crumbs", h("a", { attrs: { href: "#/studies" } }, "Studies")), h("h1", {}, study.name), isGone() ? goneNote("study") : null, counts(study));
    if (!panel) return;
    refill(forest, forestTable(panel, study));
    refill(runs, runTable(panel, study));
  }

  choice.addEventListener("change", show);
  root.replaceChildren(
    head,
    h("section", "study-panel", h("div", "section-line", h("h2", {}, "Effects"), choice), forest),
    h("section", "study-panel", h("h2", {}, "Runs"), runs),
  );
  show();
  store.events.watch([]);
  let told = JSON.stringify(store.studies.get(id));
  store.onChange(() => {
    const now = JSON.stringify(store.studies.get(id));
    if (now === told) return;
    told = now;
    show();
    fetchStudy(id, signal).then((newer) => {
      study = newer;
      show();
    }, () => undefined);
  }, signal);
};

function counts(study: Study): HTMLElement {
  const base = study.bases.map((one) => one.summary).filter(Boolean);
  return h(
    "div",
    {},
    h("div", "run-line", stateMark(study.state), progress(study.done, study.planned, study.name, "runs")),
    base.map((summary) => h("p", "muted", summary)),
  );
}

function forestTable(panel: Panel, study: Study): HTMLElement {
  if (!panel.effects.length) {
    const waits = study.done < study.planned ? "Effects appear as soon as a pair of runs is finished." : "The study has no comparison with this measure.";
    return h("p", "muted", waits);
  }
  const scale = new ForestScale(panel.effects);
  const better = `${words(panel.measure)}, ${panel.better} is better`;
  return h(
    "table",
    "forest-table",
    h("caption", "muted", `The change of ${better}: interquartile mean over paired seeds with an interval of 95 %.`),
    headings("Tip", "Effect", "Interval", "Verdict", "Seeds"),
    h(
      "tbody",
      {},
      panel.effects.map((one) =>
        h(
          "tr",
          {},
          h("th", { attrs: { scope: "row" } }, h("span", {}, one.name), tipButton(one.tip, one.tip)),
          h("td", "forest-cell", scale.row(one)),
          h("td", "figures", scale.text(one)),
          h("td", {}, verdictMark(one.verdict)),
          h("td", "figures", count(one.seeds), h("span", "unit", " seeds"), one.failures ? h("span", "muted", ` (${one.failures} failed)`) : null),
        ),
      ),
    ),
    h("tfoot", {}, h("tr", {}, h("td"), h("td", "forest-cell", scale.axis()), h("td", { attrs: { colspan: 3 } }))),
  );
}

/** A row per arm, a column per seed; each cell leads to its run. */
function runTable(panel: Panel, study: Study): HTMLElement {
  const own = study.runs.filter((run) => run.base === panel.base);
  const seeds = [...new Set(own.map((run) => run.seed))].sort((a, b) => a - b);
  const arms = [...new Set(own.map((run) => run.arm ?? ""))];
  const cell = (run: StudyRun | undefined): HTMLElement => {
    if (!run) return h("td", "muted", "–");
    const value = run.values[panel.measure];
    const text = value === undefined || value === null ? run.state : figure(value);
    const name = `${run.arm ?? "base"}, seed ${run.seed}: ${text}`;
    const inner = run.run ? h("a", { attrs: { href: `#/run/${run.run}`, "aria-label": name } }, text) : text;
    return h("td", "figures", inner, run.state !== "done" && value != null ? h("span", "muted", ` ${run.state}`) : null);
  };
  const rows = arms.map((arm) => row(arm || "base", ...seeds.map((seed) => cell(own.find((run) => (run.arm ?? "") === arm && run.seed === seed)))));
  return scrollTable(
    "Runs of the study",
    "study-runs",
    h("caption", "muted", `The ${words(panel.measure)} of each run, which leads to its curves.`),
    headings("Arm", ...seeds.map((seed) => `seed ${seed}`)),
    h("tbody", {}, rows),
  );
}
