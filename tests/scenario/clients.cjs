// The official clients, with only base URL and key changed: node clients.cjs CLIENT METHOD ID BASE_URL [RETRIES]
// Prints {"result": ...}, or {"error": {"classes": [...], "status": ..., "message": ...}} with the classes from the
// error's own up.
const [client, method, id, base, retries] = process.argv.slice(2);
const options = retries === undefined ? {} : { maxRetries: Number(retries) };

const clients = {
  openai() {
    const { OpenAI } = require('openai');
    const openai = new OpenAI({ apiKey: 'a-client', baseURL: `${base}/v1`, ...options });
    const download = async (query) => {
      const response = await openai.videos.downloadContent(id, query);
      return { type: response.headers.get('content-type'), base64: Buffer.from(await response.arrayBuffer()).toString('base64') };
    };
    return {
      retrieve: () => openai.videos.retrieve(id),
      download: () => download({}),
      thumbnail: () => download({ variant: 'thumbnail' }),
    };
  },
  runway() {
    const { RunwayML } = require('@runwayml/sdk');
    const runway = new RunwayML({ apiKey: 'a-client', baseURL: base, ...options });
    return {
      retrieve: () => runway.tasks.retrieve(id),
      wait: () => runway.tasks.retrieve(id).waitForTaskOutput(),
    };
  },
  luma() {
    const { LumaAI } = require('lumaai');
    const luma = new LumaAI({ authToken: 'a-client', baseURL: `${base}/dream-machine/v1`, ...options });
    return { retrieve: () => luma.generations.get(id) };
  },
  replicate() {
    const Replicate = require('replicate');
    const replicate = new Replicate({ auth: 'a-client', baseUrl: `${base}/v1` });
    return {
      retrieve: () => replicate.predictions.get(id),
      wait: async () => replicate.wait(await replicate.predictions.get(id), { interval: 100 }),
    };
  },
};

function classesOf(error) {
  const classes = [];
  for (let at = Object.getPrototypeOf(error); at && at.constructor !== Object; at = Object.getPrototypeOf(at))
    classes.push(at.constructor.name);
  return classes;
}

(async () => {
  try {
    console.log(JSON.stringify({ result: await clients[client]()[method]() }));
  } catch (error) {
    const status = error.status ?? error.response?.status;
    const details = error.taskDetails;
    console.log(JSON.stringify({ error: { classes: classesOf(error), status, message: error.message, details } }));
  }
})();
