/** The runs that are selected for a comparison; the bar at the lower edge of the list. */

import { MAX_COMPARED } from "../charts/palette";
import { h, setText } from "../dom";
import { counted } from "../format";

export class Selection {
  private readonly chosen = new Set<string>();
  private readonly text = h("span", "figures");
  private readonly link = h("a", "primary", "Compare");
  readonly bar = h(
    "div",
    { class: "selection-bar", attrs: { role: "region", "aria-label": "Selected runs", hidden: true } },
    this.text,
    this.link,
    h("button", { class: "quiet", attrs: { type: "button" }, on: { click: () => this.clear() } }, "Clear"),
  );

  constructor(private readonly onClear: () => void) {}

  has(id: string): boolean {
    return this.chosen.has(id);
  }

  set(id: string, selected: boolean): void {
    if (selected) this.chosen.add(id);
    else this.chosen.delete(id);
    const size = this.chosen.size;
    this.bar.hidden = size === 0;
    const few = size < 2;
    const many = size > MAX_COMPARED;
    const hint = few ? ", select another" : many ? `, at most ${MAX_COMPARED} can be compared` : "";
    setText(this.text, `${counted(size, "run")} selected${hint}`);
    if (few || many) this.link.removeAttribute("href");
    else this.link.href = `#/compare/${[...this.chosen].join(",")}`;
  }

  /** Forget the runs that are not there any more. */
  keep(there: { has(id: string): boolean }): void {
    for (const id of [...this.chosen]) if (!there.has(id)) this.set(id, false);
  }

  private clear(): void {
    for (const id of [...this.chosen]) this.set(id, false);
    this.onClear();
  }
}
