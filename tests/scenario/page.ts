// A page in TypeScript that uses nginx/www/taskproxy.js; test_types.py compiles it. The compiler also reports each of the mistakes
// at the end that it does not find.
import { contentUrl, TaskError, watchTask, watchTasks } from '../../nginx/www/taskproxy.js';
import type { Result, View } from '../../nginx/www/taskproxy.js';

export async function follow(bar: HTMLProgressElement, video: HTMLVideoElement): Promise<string | null> {
    const stop = new AbortController();
    try {
        for await (const view of watchTask('/v1/tasks/sora/task_01', { signal: stop.signal, getLink: (task) => sign([task]) })) {
            bar.value = view.progress ?? 0;
            if (view.status === 'succeeded') video.src = contentUrl(view, 0);
            if (view.error !== null) return view.error;
        }
    } catch (error) {
        if (!(error instanceof TaskError)) throw error;
        const wait: number | null = error.retryAfter;
        return error.final ? error.code : `${error.task}: ${error.message} (${error.status}) ${wait ?? 0} s`;
    }
    return null;
}

export async function followAll(tasks: string[]): Promise<Map<string, Result[]>> {
    const results = new Map<string, Result[]>();
    const take = (view: View): unknown => results.set(view.task_id, view.results);
    const options = { base: 'https://tasks.example.com', stream: false, onStatus: take, onProblem: (problem: TaskError | null) => problem?.code, getLink: sign };
    for await (const view of watchTasks(tasks, options)) take(view);
    return results;
}

async function sign(tasks: string[]): Promise<string> {
    return (await fetch('/sign', { method: 'POST', body: tasks.join() })).text();
}

export function mistakes(view: View): void {
    // @ts-expect-error: null if the provider reports none
    view.progress.toFixed();
    // @ts-expect-error: no such state
    view.status === 'done';
    // @ts-expect-error: no such member
    view.video;
    // @ts-expect-error: a list of tasks needs watchTasks()
    watchTask(['sora/task_01']);
    // @ts-expect-error: no such option
    watchTask('/v1/tasks/sora/task_01', { onEnd: () => 0 });
    // @ts-expect-error: the link of one task is not that of a list
    watchTask('/v1/tasks/sora/task_01', { getLink: sign });
    // @ts-expect-error: contentUrl() takes a view, not a result
    contentUrl(view.results[0]);
}
