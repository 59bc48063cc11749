/**
 * Follows the tasks of taskproxy in a web page. It has no dependencies and needs no build step.
 *
 *     import { watchTask, contentUrl } from './taskproxy.js';
 *
 *     for await (const view of watchTask('/v1/tasks/sora/task_01?team=web&exp=…&sig=…')) {
 *         bar.value = view.progress ?? 0;
 *         if (view.status === 'succeeded') video.src = contentUrl(view, 0);
 *     }
 *
 * A watch yields the unified view of its task at once, after each change, and for the last time when the task has ended. It
 * is a sequence of attempts:
 *
 *     a stream         EventSource; the browser reconnects it by itself after short interruptions
 *     then a request   because EventSource does not tell why a stream was refused
 *     long polls       instead of both, when streams are refused and requests are answered
 *
 * After a temporary failure, the watch pauses and tries again, for as long as it takes. A permanent failure, such as a task
 * that does not exist, is thrown as a TaskError. An expired link is replaced by one from getLink(); without that option, it
 * ends the watch. When the page becomes visible or the network returns, a new attempt starts immediately: the connection may
 * have died unnoticed. watchTasks() follows up to 100 tasks in the same way.
 *
 * @typedef {object} Result  One file that the task has generated; `content` is the path to pass to contentUrl().
 * @property {string} type  'video', 'image', 'audio', …
 * @property {string} url
 * @property {string} content
 * @property {number | null} width
 * @property {number | null} height
 * @property {number | null} duration_seconds
 * @property {number | null} bytes
 *
 * @typedef {object} View  The unified view of a task.
 * @property {string} provider
 * @property {string} task_id
 * @property {'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'} status
 * @property {number | null} progress  0 to 100; null if the provider does not tell
 * @property {string | null} error
 * @property {string | null} created_at  RFC 3339, as the other times
 * @property {string | null} started_at
 * @property {string | null} finished_at
 * @property {Result[]} results
 * @property {string | null} results_expire_at
 *
 * @typedef {object} Options
 * @property {(view: View) => void} [onStatus]  Called with each view, before the iterator yields it.
 * @property {(problem: TaskError | null) => void} [onProblem]  Called when views may be out of date because of a failure, and
 *     with null when that is over. For a list, also called when a single task has failed for good: then `task` is set.
 * @property {AbortSignal} [signal]  Ends the watch; the iterator then throws the signal's reason.
 * @property {boolean} [stream]  false: use long polls only.
 *
 * @typedef {object} TaskLink
 * @property {(task: string) => string | Promise<string>} [getLink]  Returns a new signed link for the task PROVIDER/TASK_ID: its
 *     unified path with the link's query.
 *
 * @typedef {object} ListLink
 * @property {(tasks: string[]) => string | Promise<string>} [getLink]  Returns a new signed link for these tasks: /v1/tasks with
 *     the link's query. If it is set, the first link also comes from it.
 * @property {string} [base]  The address of taskproxy, if it is not that of the page.
 */

const ENDED = ['succeeded', 'failed', 'cancelled'];
const LONG_POLL = 30; // seconds
const PATIENCE = 45_000; // milliseconds for a request, long polls included
const FIRST_EVENT = 20_000; // a stream begins with an event; a proxy that buffers would hold it back
const NEXT_EVENT = 60_000; // heartbeats of a stream are invisible to scripts, so it is reopened when it is silent for so long
const FIRST_PAUSE = 1_000; // after a failure; doubled for each further one
const LONGEST_PAUSE = 30_000;

/** @type {WeakMap<View, URL>} The link by which each view was read. */
const links = new WeakMap();

/** A request that was refused or failed, or a task that cannot be followed. */
export class TaskError extends Error {
    /** @param {{ code: string, message: string, status?: number, retryAfter?: number | null, task?: string | null }} problem */
    constructor({ code, message, status = 0, retryAfter = null, task = null }) {
        super(message);
        this.name = 'TaskError';
        /** taskproxy's code, such as 'task_not_found'; 'network', 'interrupted' and 'invalid_answer' are the module's own. */
        this.code = code;
        /** The HTTP status; 0 without an answer. */
        this.status = status;
        /** Seconds to wait before the next request, or null. */
        this.retryAfter = retryAfter;
        /** PROVIDER/TASK_ID if it concerns one task of a list, otherwise null. */
        this.task = task;
    }

    /** Whether trying again is pointless. */
    get final() {
        return this.status >= 400 && this.status < 500 && ![408, 425, 429].includes(this.status);
    }
}

/**
 * Follows one task to its end.
 * @param {string | URL} url  The task's unified path, or a signed link: /v1/tasks/PROVIDER/TASK_ID?…
 * @param {Options & TaskLink} [options]
 * @returns {AsyncGenerator<View, void, void>}
 */
export function watchTask(url, options = {}) {
    const link = new URL(url, location.href);
    const [, task] = link.pathname.match(/\/v1\/tasks\/(.+)$/) ?? [];
    if (!task) throw new TypeError(`${url} is not the unified path of a task`);
    return new Watch([decodeURIComponent(task)], { ...options, link, single: true }).views();
}

/**
 * Follows up to 100 tasks to their ends, on one connection. A task that cannot be followed is reported to onProblem().
 * @param {string[]} tasks  Each PROVIDER/TASK_ID.
 * @param {Options & ListLink} [options]
 * @returns {AsyncGenerator<View, void, void>}
 */
export function watchTasks(tasks, options = {}) {
    const ids = [...new Set(tasks)];
    const path = `/v1/tasks?ids=${ids.map(encodeURIComponent).join(',')}`;
    const link = options.getLink ? null : new URL(path, options.base ?? location.href);
    return new Watch(ids, { ...options, link, single: false }).views();
}

/**
 * The address of a result, for `src` and `href`. It is valid for as long as the link by which the view was read.
 * @param {View} view  A view that a watch yielded.
 * @param {number} [n]  The index of the result.
 * @returns {string}
 */
export function contentUrl(view, n = 0) {
    const link = links.get(view) ?? new URL(location.href);
    const url = new URL(view.results[n].content, link);
    for (const [name, value] of link.searchParams) {
        if (!['ids', 'wait'].includes(name)) url.searchParams.append(name, value);
    }
    return url.href;
}

/** One watch of one or several tasks. */
class Watch {
    #tasks; // all, in the order of a list
    #open; // those that have not ended
    #known = new Map(); // the last view or problem of each task, as JSON
    #link; // null: from getLink()
    #options;
    #streams; // whether streams are worth an attempt
    #refusals = 0; // streams in a row without an event, although requests were answered
    #failures = 0; // attempts in a row
    #renewed = false; // the link, since the last answer
    #etag = ''; // of the last answer to a poll
    #troubled = false; // onProblem() has been called, and not yet with null

    /** @param {string[]} tasks  @param {any} options */
    constructor(tasks, { link, ...options }) {
        this.#tasks = tasks;
        this.#open = new Set(tasks);
        this.#link = link;
        this.#options = options;
        this.#streams = options.stream !== false && typeof EventSource !== 'undefined';
    }

    async *views() {
        while (this.#open.size) {
            try {
                this.#options.signal?.throwIfAborted();
                if (!this.#link || (this.#options.getLink && expired(this.#link))) await this.#renew();
                yield* this.#attempt();
            } catch (error) {
                this.#options.signal?.throwIfAborted();
                await this.#recover(error);
            }
        }
    }

    /** A stream, or a request where that brings nothing. Both end early when the page comes back, or the caller aborts. */
    async *#attempt() {
        const attempt = new AbortController();
        const forget = onReturn(() => attempt.abort(), this.#options.signal);
        try {
            if (this.#streams && (yield* this.#stream(attempt.signal))) return;
            if (!attempt.signal.aborted) yield* this.#poll(attempt.signal);
        } catch (error) {
            if (!attempt.signal.aborted || error instanceof TaskError) throw error;
        } finally {
            forget();
        }
    }

    /** Returns false if the stream was refused or brought nothing. */
    async *#stream(/** @type {AbortSignal} */ signal) {
        const events = new Queue();
        const source = new EventSource(this.#link);
        const end = () => events.end();
        let answered = false;
        let timer = setTimeout(end, FIRST_EVENT);
        for (const type of ['status', 'problem', 'stale']) source.addEventListener(type, (event) => events.push(event));
        source.onopen = () => this.#succeeded();
        source.onerror = () => {
            if (answered) this.#report(new TaskError({ code: 'interrupted', message: 'The connection was interrupted.' }));
            if (source.readyState === EventSource.CLOSED || expired(this.#link)) end();
        };
        signal.addEventListener('abort', end);
        try {
            for await (const { type, data } of events) {
                clearTimeout(timer);
                timer = setTimeout(end, NEXT_EVENT);
                answered = true;
                this.#refusals = 0;
                yield* this.#take(type, JSON.parse(data));
                if (!this.#open.size) return true;
            }
            return answered && source.readyState !== EventSource.CLOSED;
        } finally {
            clearTimeout(timer);
            source.close();
        }
    }

    /** One request, which waits for a change of the previous answer if there are no streams. */
    async *#poll(/** @type {AbortSignal} */ signal) {
        const started = Date.now();
        const url = new URL(this.#link);
        if (!this.#streams && this.#etag) url.search += `${url.search ? '&' : '?'}wait=${LONG_POLL}`;
        const { body, etag, retryAfter } = await ask(url, this.#etag, signal);
        this.#succeeded();
        if (body) {
            this.#etag = etag;
            yield* this.#options.single ? this.#take('status', body) : this.#takeList(body.tasks);
        }
        if (this.#streams && ++this.#refusals === 2) this.#streams = false;
        if (this.#open.size) await pause(1000 * (retryAfter ?? 2) - (Date.now() - started), this.#options.signal);
    }

    /** The tasks of a list are those of its link, which may have another order than the caller's. */
    *#takeList(/** @type {any[]} */ items) {
        const tasks = this.#link.searchParams.get('ids').split(',');
        for (const [i, item] of items.entries()) {
            yield* this.#take(typeof item.status === 'number' ? 'problem' : 'status', item, tasks[i]);
        }
    }

    /** Takes a view, a problem, or the news that a view is old; yields views that have changed. */
    *#take(/** @type {string} */ type, /** @type {any} */ item, task = this.#taskOf(item)) {
        if (type !== 'status' || task === null) return this.#takeProblem(item, task);
        this.#succeeded();
        if (ENDED.includes(item.status)) this.#open.delete(task);
        if (!this.#isNews(task, item)) return;
        links.set(item, this.#link);
        this.#options.onStatus?.(item);
        yield item;
    }

    #takeProblem(/** @type {any} */ item, /** @type {string | null} */ task) {
        const error = problemOf(item, this.#options.single ? null : task);
        if (!error.final) return this.#report(error);
        if (!error.task) throw error;
        this.#open.delete(error.task);
        if (this.#isNews(error.task, error.code)) this.#options.onProblem?.(error);
    }

    #taskOf(/** @type {any} */ item) {
        if (this.#options.single) return this.#tasks[0];
        return item.provider ? `${item.provider}/${item.task_id}` : null;
    }

    #isNews(/** @type {string} */ task, /** @type {any} */ item) {
        const text = JSON.stringify(item);
        const changed = this.#known.get(task) !== text;
        this.#known.set(task, text);
        return changed;
    }

    #succeeded() {
        this.#failures = 0;
        this.#renewed = false;
        if (this.#troubled) this.#options.onProblem?.(null);
        this.#troubled = false;
    }

    #report(/** @type {TaskError} */ error) {
        this.#troubled = true;
        this.#options.onProblem?.(error);
    }

    /** After a failed attempt: pauses; or has the link replaced, if that is refused; or throws the error, if it is final. */
    async #recover(/** @type {any} */ cause) {
        const { getLink, signal } = this.#options;
        const error = cause instanceof TaskError ? cause : new TaskError({ code: 'network', message: String(cause?.message ?? cause) });
        if ([401, 403].includes(error.status) && getLink && !this.#renewed) {
            this.#link = null;
            return;
        }
        if (error.final) throw error;
        this.#report(error);
        const backOff = Math.min(FIRST_PAUSE * 2 ** this.#failures++, LONGEST_PAUSE);
        await pause(Math.max(backOff, 1000 * (error.retryAfter ?? 0)) * (1 + Math.random() / 4), signal);
    }

    async #renew() {
        const { getLink, single, base = location.href } = this.#options;
        this.#link = new URL(await getLink(single ? this.#tasks[0] : this.#tasks), base);
        if (!single && !this.#link.searchParams.has('ids')) this.#link.searchParams.set('ids', this.#tasks.join(','));
        this.#renewed = true;
        this.#etag = '';
    }
}

/** Events that a callback adds and a loop takes. */
class Queue {
    /** @type {any[]} */
    #items = [];
    #ended = false;
    #wake = () => {};

    push(/** @type {any} */ item) {
        this.#items.push(item);
        this.#wake();
    }

    end() {
        this.#ended = true;
        this.#wake();
    }

    async *[Symbol.asyncIterator]() {
        for (;;) {
            while (this.#items.length) yield this.#items.shift();
            if (this.#ended) return;
            await new Promise((resolve) => { this.#wake = () => resolve(undefined); });
        }
    }
}

/** One request. `body` is null if nothing has changed since the answer with this ETag. */
async function ask(/** @type {URL} */ url, /** @type {string} */ etag, /** @type {AbortSignal} */ signal) {
    const request = new AbortController();
    const timer = setTimeout(() => request.abort(new TaskError({ code: 'network', message: 'No answer arrived.' })), PATIENCE);
    signal.addEventListener('abort', () => request.abort());
    try {
        const response = await fetch(url, { headers: etag ? { 'If-None-Match': etag } : {}, cache: 'no-store', signal: request.signal });
        const retryAfter = Number(response.headers.get('Retry-After')) || null;
        if (response.status === 304) return { body: null, etag, retryAfter };
        const body = await response.json().catch(() => null);
        if (response.ok && body) return { body, etag: response.headers.get('ETag') ?? '', retryAfter };
        throw problemOf({ retry_after: retryAfter, ...body, status: response.ok ? 502 : response.status }, null);
    } finally {
        clearTimeout(timer);
    }
}

/** The error for a problem object, or for what a server in between sent instead. */
function problemOf(/** @type {any} */ problem, /** @type {string | null} */ task) {
    const { code = 'invalid_answer', detail, title, status, retry_after: retryAfter } = problem;
    return new TaskError({ code, message: detail ?? title ?? `HTTP status ${status}`, status, retryAfter, task });
}

/** Whether a signed link has expired, if the clock of this device is right. */
function expired(/** @type {URL} */ link) {
    return Date.now() > 1000 * Number(link.searchParams.get('exp') ?? Infinity);
}

/** Calls back when the page has become visible, the network has returned, or the caller has aborted, until the function that it returns is called. */
function onReturn(/** @type {() => void} */ callback, /** @type {AbortSignal | undefined} */ abort) {
    const listeners = new AbortController();
    const { signal } = listeners;
    globalThis.addEventListener('online', callback, { signal });
    globalThis.document?.addEventListener('visibilitychange', () => document.hidden || callback(), { signal });
    abort?.addEventListener('abort', callback, { signal });
    return () => listeners.abort();
}

/** Waits so long, or until the page comes back. Without a network, it waits for that. */
function pause(/** @type {number} */ milliseconds, /** @type {AbortSignal | undefined} */ abort) {
    return new Promise((resolve) => {
        const timer = setTimeout(() => navigator.onLine && done(), milliseconds);
        const forget = onReturn(() => done(), abort);
        const done = () => {
            clearTimeout(timer);
            forget();
            resolve(undefined);
        };
    });
}
