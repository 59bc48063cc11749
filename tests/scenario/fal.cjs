// fal's client and the AI SDK, in a program whose tasks were submitted elsewhere: node fal.cjs METHOD ID BASE_URL
// Prints {"result": ...}, or {"error": {"name", "status", "message", "fields"}}.
const [method, id, base] = process.argv.slice(2);
const endpoint = 'fal-ai/pika/v2.2/text-to-video';
const requests = `fal-ai/pika/requests/${id}`;

function fal() {
  const { createFalClient } = require('@fal-ai/client');
  const proxyUrl = { url: `${base}/api/fal/proxy`, when: 'always' };
  return createFalClient({ credentials: 'a-client', proxyUrl, retry: { maxRetries: 0 } }).queue;
}

// Answers the submission itself. Everything else goes to us: the AI SDK has no base URL for fal's queue.
async function redirected(url, options) {
  if (options.method === 'POST')
    return Response.json({ request_id: id, response_url: `https://queue.fal.run/${requests}` });
  return fetch(url.replace('https://queue.fal.run', base), options);
}

async function generate() {
  const { experimental_generateVideo: generateVideo } = require('ai');
  const { createFal } = require('@ai-sdk/fal');
  const provider = createFal({ apiKey: 'a-client', fetch: redirected });
  const downloaded = [];
  const download = async ({ url }) => {
    downloaded.push(String(url));
    const answer = await fetch(`${base}/v1/tasks/fal/fal-ai/pika/${id}/content/0`, { redirect: 'manual' });
    return { data: new TextEncoder().encode(answer.headers.get('location')), mediaType: 'video/mp4' };
  };
  const { video } = await generateVideo({
    model: provider.video('pika'), prompt: 'a cat', maxRetries: 0, download,
    providerOptions: { fal: { pollIntervalMs: 100 } },
  });
  return { downloaded, content: new TextDecoder().decode(video.uint8Array) };
}

const methods = {
  status: () => fal().status(endpoint, { requestId: id, logs: true }),
  subscribe: () => fal().subscribeToStatus(endpoint, { requestId: id, pollInterval: 100 }),
  result: () => fal().result(endpoint, { requestId: id }),
  submit: () => fal().submit(endpoint, { input: { prompt: 'a cat' } }),
  submitLarge: () => fal().submit(endpoint, { input: { image: 'x'.repeat(100000) } }),
  cancel: () => fal().cancel(endpoint, { requestId: id }),
  generate,
};

methods[method]().then(
  (result) => console.log(JSON.stringify({ result })),
  (error) => console.log(JSON.stringify({ error: {
    name: error.name, status: error.status, message: error.message, fields: error.fieldErrors } })),
);
