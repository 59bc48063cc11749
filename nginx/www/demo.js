// The page of demo.html: cards of tasks, all followed by one watch.
import { contentUrl, watchTasks } from '/taskproxy.js';

const ENDED = ['succeeded', 'failed', 'cancelled', 'missing'];
const NAMES = { waiting: 'Asking', queued: 'Queued', running: 'Running', succeeded: 'Succeeded', failed: 'Failed', cancelled: 'Cancelled', missing: 'Unavailable' };
const FIGURES_EVERY = 2000; // milliseconds

const byId = (id) => document.getElementById(id);
const unused = Math.floor(Math.random() * 5e5 + 5e5); // part of the ids, so that these tasks begin with the page; 404… would not exist
const offered = [
    [`openai/video_${unused}`, 'a video that needs the key'],
    [`sora/task_${unused}`, 'a video at a signed URL'],
    [`midjourney/${unused}`, 'an image'],
    [`runway/fail_${unused}`, 'a task that fails'],
    [`sora/missing_${unused}`, 'a task that does not exist'],
];

/** One task on the page. */
class Card {
    constructor(task) {
        this.task = task;
        this.state = 'waiting';
        this.since = Date.now();
        this.root = byId('card').content.cloneNode(true).firstElementChild;
        this.part = (selector) => this.root.querySelector(selector);
        const [provider, ...id] = task.split('/');
        const title = this.part('h3');
        title.id = `card-${task}`;
        title.append(Object.assign(document.createElement('small'), { textContent: provider }), id.join('/'));
        this.part('article').setAttribute('aria-labelledby', title.id);
        this.part('progress').setAttribute('aria-label', `Progress of ${task}`);
        this.part('.curl').textContent = `curl ${location.origin}/v1/tasks/${task}`;
        this.part('.remove').setAttribute('aria-label', `Remove ${task}`);
        this.part('.remove').addEventListener('click', () => remove(this));
        this.enter('waiting');
        byId('tasks').prepend(this.root);
    }

    get ended() {
        return ENDED.includes(this.state);
    }

    enter(state) {
        if (state !== this.state && state !== 'queued') announce(`${this.task}: ${NAMES[state]}`);
        this.state = state;
        this.root.dataset.state = state;
        this.part('.pill').textContent = NAMES[state];
        this.tick();
    }

    tick() {
        const seconds = Math.round(((this.until ?? Date.now()) - this.since) / 1000);
        this.part('.elapsed').textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
    }

    show(view) {
        this.part('.view').textContent = JSON.stringify(view, null, 2);
        const bar = this.part('progress');
        if (view.status === 'succeeded') bar.value = 100;
        else if (view.progress === null) bar.removeAttribute('value'); // the provider does not tell
        else bar.value = view.progress;
        if (ENDED.includes(view.status)) this.until = Date.now();
        this.enter(view.status);
        if (view.error) this.note(view.error);
        if (view.status === 'succeeded') this.play(view);
    }

    fail(problem) {
        this.until = Date.now();
        this.enter('missing');
        this.part('.view').textContent = `${problem.code}, status ${problem.status}`;
        this.note(problem.message);
    }

    note(text) {
        this.part('.note').textContent = text;
        this.part('.note').hidden = false;
    }

    /** Shows the first result; videos play without sound, or wait if the reader prefers little motion. */
    play(view) {
        const n = view.results.findIndex(({ type }) => ['video', 'image', 'audio'].includes(type));
        if (n < 0) return;
        const { type } = view.results[n];
        const result = document.createElement(type === 'image' ? 'img' : type);
        if (type === 'image') {
            result.alt = `The result of ${this.task}`;
        } else {
            Object.assign(result, { controls: true, loop: true, muted: true, playsInline: true });
            result.autoplay = !matchMedia('(prefers-reduced-motion: reduce)').matches;
            result.setAttribute('aria-label', `The result of ${this.task}`);
            const poster = view.results.findIndex(({ type: other }) => other === 'thumbnail');
            if (poster >= 0) result.poster = contentUrl(view, poster);
        }
        result.addEventListener('error', () => {
            result.remove();
            this.note('The result cannot be shown here. Its address is in the view below.');
        });
        result.src = contentUrl(view, n);
        this.part('.stage').append(result);
    }
}

/** @type {Map<string, Card>} */
const cards = new Map();
let changes = 0;
let watch = new AbortController();

/** Follows all tasks that have not ended. */
async function follow() {
    watch.abort();
    watch = new AbortController();
    const { signal } = watch;
    const tasks = [...cards.values()].filter((card) => !card.ended).map((card) => card.task);
    const all = [...cards.keys()].join(',');
    byId('empty').hidden = cards.size > 0;
    byId('curl').textContent = `curl -N -H 'Accept: text/event-stream' '${location.origin}/v1/tasks?ids=${all}'`;
    byId('again').href = `?tasks=${all}`;
    history.replaceState(null, '', byId('again').href);
    if (!tasks.length) return;
    try {
        for await (const view of watchTasks(tasks, { signal, onProblem })) {
            byId('changes').textContent = ++changes;
            cards.get(`${view.provider}/${view.task_id}`)?.show(view);
        }
    } catch (error) {
        if (!signal.aborted) onProblem(error);
    }
}

/** A task that cannot be followed has the problem on its card; other problems concern the page until they are over. */
function onProblem(problem) {
    if (problem?.final && problem.task) return cards.get(problem.task)?.fail(problem);
    byId('trouble').hidden = !problem;
    byId('trouble').textContent = problem ? `${problem.message} The page keeps trying.` : '';
}

function announce(text) {
    byId('announced').textContent = text;
}

function add(...tasks) {
    for (const task of tasks) {
        if (!cards.has(task)) cards.set(task, new Card(task));
    }
    follow();
}

function remove(card) {
    cards.delete(card.task);
    card.root.remove();
    byId('task').focus();
    follow();
}

/** The figures count from the first answer on. */
async function showFigures() {
    const answer = await fetch('status').then((response) => response.json()).catch(() => null);
    if (!answer?.upstreams) return;
    const figures = {
        queries: answer.upstreams.reduce((sum, upstream) => sum + upstream.queries, 0),
        answers: answer.requests.answered,
    };
    showFigures.first ??= figures;
    for (const [name, value] of Object.entries(figures)) {
        byId(name).textContent = Math.max(0, value - showFigures.first[name]);
    }
}

function offer() {
    for (const [task, what] of offered) {
        const button = Object.assign(document.createElement('button'), { type: 'button' });
        button.append(Object.assign(document.createElement('b'), { textContent: task }), what);
        button.addEventListener('click', () => add(task));
        byId('offers').append(button);
        byId('offered').append(Object.assign(document.createElement('option'), { value: task, label: what }));
    }
}

byId('add').addEventListener('submit', (event) => {
    event.preventDefault();
    add(byId('task').value.trim());
    event.target.reset();
});
offer();
await showFigures();
const asked = new URLSearchParams(location.search);
if (asked.has('start')) add(...offered.map(([task]) => task).reverse());
else add(...(asked.get('tasks') || '').split(',').filter(Boolean));
setInterval(() => document.hidden || showFigures(), FIGURES_EVERY);
setInterval(() => cards.forEach((card) => card.ended || card.tick()), 1000);
