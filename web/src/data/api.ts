/** Requests to the server. Ids are those that the server gave, or those of the address that was opened. */

import type { Ladder, Overview, PlaygroundAnswer, Run, SeriesAnswer, Study, Tip } from "./types";

/** A refusal of the server, with the words that it gave. */
export class RequestError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const EXPIRED = "This page is not signed in. Open the address that poise web printed in the terminal.";

async function refusal(answer: Response): Promise<RequestError> {
  if (answer.status === 401) return new RequestError(401, EXPIRED);
  const body: unknown = await answer.json().catch(() => null);
  const told = body && typeof body === "object" && "error" in body ? String(body.error) : "";
  return new RequestError(answer.status, told || `The server answered with status ${answer.status}.`);
}

async function get(path: string, signal?: AbortSignal): Promise<Response> {
  const answer = await fetch(path, { signal: signal ?? null, credentials: "same-origin", redirect: "error" });
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function json<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await get(path, signal)).json()) as T;
}

interface SeriesQuery {
  names: string[];
  from?: number;
  to?: number;
  points?: number;
}

function queryText(query: SeriesQuery): string {
  const params = new URLSearchParams({ names: query.names.join(",") });
  if (query.from !== undefined) params.set("from", String(Math.floor(query.from)));
  if (query.to !== undefined) params.set("to", String(Math.ceil(query.to)));
  if (query.points !== undefined) params.set("points", String(query.points));
  return `?${params.toString()}`;
}

/** As many names as fit into one request. */
const NAMES_PER_REQUEST = 24;

/** Series of a run; many of them are asked for in several requests. */
export async function fetchSeries(id: string, query: SeriesQuery, signal?: AbortSignal): Promise<SeriesAnswer> {
  const parts: Promise<SeriesAnswer>[] = [];
  for (let start = 0; start === 0 || start < query.names.length; start += NAMES_PER_REQUEST) {
    const names = query.names.slice(start, start + NAMES_PER_REQUEST);
    parts.push(json<SeriesAnswer>(at("runs", id) + `/series${queryText({ ...query, names })}`, signal));
  }
  const answers = await Promise.all(parts);
  const [first] = answers as [SeriesAnswer];
  const lasts = answers.map((answer) => answer.last);
  return {
    ...first,
    last: lasts.includes(null) ? null : Math.min(...(lasts as number[])), // up to there all parts have all rows
    complete: answers.every((answer) => answer.complete),
    generation: answers.every((answer) => answer.generation === first.generation) ? first.generation : "",
    series: Object.assign({}, ...answers.map((answer) => answer.series)) as SeriesAnswer["series"],
  };
}

/** The address of something with an id. */
const at = (kind: "runs" | "studies" | "ladders", id: string): string => `/api/${kind}/${encodeURIComponent(id)}`;

/** The address of a sample grid. A browser does not ask again for one that it has shown, so `tag` is a part of it. */
export const gridAddress = (run: string, step: number, tag: string): string => `${at("runs", run)}/grids/${step}?tag=${tag}`;

/** The address of the sample grid at a place among those of a run, which has one there. */
export const gridAt = ({ id, grids, grid_tags }: Run, index: number): string => gridAddress(id, grids[index] as number, grid_tags[index] as string);

/** The address of an image of a rung, with its tag; see `gridAddress`. */
export const rungImageAddress = (ladder: string, run: string, name: string, tag: string): string =>
  `${at("ladders", ladder)}/images/${run}/${name}?tag=${tag}`;

export const fetchOverview = (signal?: AbortSignal) => json<Overview>("/api/overview", signal);
export const fetchRun = (id: string, signal?: AbortSignal) => json<Run>(at("runs", id), signal);
export const fetchStudy = (id: string, signal?: AbortSignal) => json<Study>(at("studies", id), signal);
export const fetchLadder = (id: string, signal?: AbortSignal) => json<Ladder>(at("ladders", id), signal);
export const fetchPlayground = (signal?: AbortSignal) => json<PlaygroundAnswer>("/api/playground", signal);

let catalogue: Promise<Tip[]> | null = null;

/** The catalogue of tips, fetched once. */
export function fetchTips(): Promise<Tip[]> {
  catalogue ??= json<Tip[]>("/api/tips").catch((error: unknown) => {
    catalogue = null;
    throw error;
  });
  return catalogue;
}

/** The records of `frames.bin` after a step, or all, with the header. */
export async function fetchFrames(id: string, after: number | null, signal?: AbortSignal): Promise<ArrayBuffer> {
  return (await get(`${at("runs", id)}/frames${after === null ? "" : `?after=${after}`}`, signal)).arrayBuffer();
}

/** Give the playground a command; its effect comes as an event. Throws `RequestError` with the reason if it is refused. */
export async function command(name: string, token: string, body: object): Promise<void> {
  const answer = await fetch(`/api/playground/${name}`, {
    method: "POST",
    credentials: "same-origin",
    redirect: "error",
    headers: { "Content-Type": "application/json", "X-Poise-Token": token },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw await refusal(answer);
}
