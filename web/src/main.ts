/** The page: its head, the views and the addresses that lead to them. */

import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/views.css";
import "./styles/playground.css";

import { Live } from "./data/live";
import { Store } from "./data/store";
import { h, setText } from "./dom";
import { closeDrawer } from "./parts/drawer";
import { failureState } from "./parts/notice";
import { themeButton } from "./theme";
import { compareView } from "./views/compare";
import { ladderView } from "./views/ladder";
import { playgroundView } from "./views/playground";
import { runView } from "./views/run";
import { runsView } from "./views/runs";
import { laddersView, studiesView } from "./views/studies";
import { studyView } from "./views/study";
import type { View } from "./views/view";

const VIEWS: Record<string, View> = {
  "": runsView,
  run: runView,
  compare: compareView,
  studies: studiesView,
  study: studyView,
  ladders: laddersView,
  ladder: ladderView,
  playground: playgroundView,
};

/** Which entry of the navigation a view belongs to. */
const PLACE: Record<string, string> = { run: "", compare: "", study: "studies", ladder: "ladders" };

const live = new Live();
const store = new Store(live);
const root = h("main", { attrs: { id: "content", tabindex: -1 } });
const banner = h("p", { class: "banner", attrs: { role: "alert", hidden: true } });
const directory = h("span", "directory muted");
const links = new Map(
  [["", "Runs"], ["studies", "Studies"], ["ladders", "Ladders"], ["playground", "Playground"]].map(([path, text]) => [
    path,
    h("a", { attrs: { href: `#/${path}` } }, text),
  ]),
);
let repaints: (() => void)[] = [];
let current = new AbortController();
/** Whether a failure is shown in place of the view. */
let failed = false;

function page(): void {
  const nav = h("nav", { attrs: { "aria-label": "Views" } }, [...links.values()]);
  const skip = h("a", { class: "skip", attrs: { href: "#content" } }, "Skip to the content");
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    root.focus();
  });
  const theme = themeButton(() => repaints.forEach((repaint) => repaint()));
  describe();
  document.body.replaceChildren(skip, h("header", "top", h("a", { class: "brand", attrs: { href: "#/" } }, "poise"), directory, nav, theme), banner, root);
}

async function route(): Promise<void> {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  repaints = [];
  closeDrawer();
  const [name = "", parameter = ""] = window.location.hash.replace(/^#\//, "").split("/");
  const view = Object.hasOwn(VIEWS, name) ? (VIEWS[name] as View) : runsView;
  for (const [path, link] of links) {
    if (path === (PLACE[name] ?? name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  root.replaceChildren();
  root.className = `view-${name || "runs"}`;
  window.scrollTo(0, 0);
  const context = {
    store,
    root,
    signal,
    title: (text: string) => (document.title = `${text} – poise`),
    onRepaint: (listener: () => void) => void repaints.push(listener),
  };
  const { hash } = window.location;
  root.setAttribute("aria-busy", "true");
  failed = false;
  try {
    await view(context, parameter);
  } catch (error) {
    if (signal.aborted) return;
    failed = true;
    root.replaceChildren(failureState(error));
    live.watch([]); // the view is tried again when the server is back
  }
  if (signal.aborted) return;
  root.removeAttribute("aria-busy");
  root.dataset["shown"] = hash;
}

function describe(): void {
  setText(directory, store.directory);
  const playground = links.get("playground") as HTMLElement;
  playground.hidden = !store.playground;
}

/** The banner comes after a moment, so that a short interruption does not show it. */
function watchConnection(): void {
  let timer = 0;
  live.on("connected", (connected) => {
    window.clearTimeout(timer);
    if (connected) banner.hidden = true;
    else {
      timer = window.setTimeout(() => {
        banner.textContent = "The server is gone: this page shows what it said last. Start poise web again and open the address that it prints.";
        banner.hidden = false;
      }, 1200);
    }
  });
}

async function start(): Promise<void> {
  page();
  watchConnection();
  store.onChange(describe);
  window.addEventListener("hashchange", () => void route());
  live.on("reopened", () => {
    if (failed) void route();
  });
  void route(); // at once: a view of one run need not wait until the server has looked at all of them
  try {
    await store.load();
  } catch (error) {
    current.abort();
    failed = true;
    root.replaceChildren(failureState(error));
    live.watch([]);
  }
}

void start();
