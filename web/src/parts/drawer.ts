/** The drawer at the side of the page, in which an alarm or a tip is explained. One at a time; Escape closes it. */

import { h, type Child } from "../dom";
import { closeIcon } from "./icons";

const title = h("h2", { attrs: { id: "drawer-title", tabindex: -1 } });
const body = h("div", "drawer-body");
const dialog = h(
  "dialog",
  { class: "drawer", attrs: { "aria-labelledby": "drawer-title" } },
  h(
    "header",
    "drawer-head",
    title,
    h("button", { class: "quiet", attrs: { type: "button", "aria-label": "Close" }, on: { click: () => dialog.close() } }, closeIcon()),
  ),
  body,
);
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

/** Open the drawer, or replace what it shows. */
export function openDrawer(heading: string, ...children: Child[]): void {
  if (!dialog.isConnected) document.body.append(dialog);
  title.textContent = heading;
  body.replaceChildren(h("div", "drawer-content", ...children));
  if (!dialog.open) dialog.showModal();
  body.scrollTop = 0;
  title.focus();
}

export function closeDrawer(): void {
  if (dialog.open) dialog.close();
}
