// The job of taskproxy in Node.js, with fastify and ioredis: checks the token, answers from memory or Redis, and queries the
// upstream once for all requests that wait for a task.
import { createHash, timingSafeEqual } from 'node:crypto';
import Fastify from 'fastify';
import Redis from 'ioredis';

const POLL_SECONDS = 2;
const ENDED_SECONDS = 86400;
const VIEWS_MAX = 10000; // in memory

const coding = { duration_secs: 1, height: 1, path: 1, size: 1, width: 1 };
const KEPT = { code: 1, message: 1, data: {
  task_id: 1, action: 1, status: 1, fail_reason: 1, submit_time: 1, start_time: 1, finish_time: 1, progress: 1,
  data: {
    created_at: 1, estimated_queue_wait_time: 1, failure_reason: 1,
    generations: {
      created_at: 1,
      encodings: { ld: coding, md: coding, source: coding, spritesheet: { path: 1 }, thumbnail: { path: 1 } },
      height: 1, id: 1, model: 1, n_frames: 1, prompt: 1, seed: 1, task_id: 1, title: 1, url: 1, width: 1,
    },
    height: 1, id: 1, model: 1, n_frames: 1, n_variants: 1, progress_pct: 1, progress_pos_in_queue: 1, prompt: 1, status: 1,
    style: 1, title: 1, type: 1, width: 1,
  },
} };

const { PEER_PORT, PEER_REDIS, PEER_UPSTREAM, PEER_TOKEN, PEER_KEY } = process.env;
const sha256 = text => createHash('sha256').update(text).digest();
const digest = sha256(PEER_TOKEN);
const redis = new Redis(PEER_REDIS);
const views = new Map(); // the least recently used one first
const fetches = new Map(); // in progress

function trim(value, kept) {
  if (Array.isArray(value)) return value.map(element => trim(element, kept));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).filter(([name]) => kept[name])
    .map(([name, member]) => [name, trim(member, kept[name])]));
}

async function queryUpstream(task) {
  const answer = await fetch(`${PEER_UPSTREAM}/sora/v1/videos/${task}`, { headers: { Authorization: `Bearer ${PEER_KEY}` } });
  const document = await answer.json();
  if (answer.status !== 200 || document.code !== 'success') throw new Error('the upstream failed');
  const body = JSON.stringify(trim(document, KEPT));
  const seconds = ['SUCCESS', 'FAILURE'].includes(document.data.status) ? ENDED_SECONDS : POLL_SECONDS;
  const view = { etag: `"${sha256(body).toString('hex').slice(0, 32)}"`, fetched: Date.now(), seconds, body };
  if (seconds > POLL_SECONDS) await redis.setex(`node:${task}`, seconds, JSON.stringify(view));
  return view;
}

function remember(task, view) {
  views.delete(task);
  views.set(task, view);
  if (views.size > VIEWS_MAX) views.delete(views.keys().next().value);
  return view;
}

async function find(task) {
  const kept = await redis.get(`node:${task}`);
  const view = kept ? JSON.parse(kept) : await queryUpstream(task);
  return remember(task, { ...view, body: Buffer.from(view.body) }); // of a text, fastify changes the Content-Type
}

function findOnce(task) {
  let going = fetches.get(task);
  if (!going) {
    going = find(task).finally(() => fetches.delete(task));
    fetches.set(task, going);
  }
  return going;
}

function send(request, reply, view, how) {
  const age = Math.floor((Date.now() - view.fetched) / 1000), left = view.seconds - age;
  reply.headers({
    'Content-Type': 'application/json',
    'X-Request-Id': request.id,
    'X-Content-Type-Options': 'nosniff',
    'Cache-Status': how === 'HIT' ? `peer; hit; ttl=${left}` : 'peer; fwd=miss; stored',
    'X-Cache': how,
    'Age': age,
    'Cache-Control': view.seconds > POLL_SECONDS ? `private, max-age=${left}` : 'private, no-cache',
    'ETag': view.etag,
    'Vary': 'Accept, Prefer, Origin, Authorization',
  });
  if (view.seconds <= POLL_SECONDS) reply.header('Retry-After', POLL_SECONDS);
  return request.headers['if-none-match'] === view.etag ? reply.code(304).send() : reply.send(view.body);
}

const server = Fastify({ keepAliveTimeout: 3600000 });

server.get('/sora/v1/videos/:task', async (request, reply) => {
  const authorization = request.headers.authorization ?? '';
  if (!authorization.startsWith('Bearer ') || !timingSafeEqual(digest, sha256(authorization.slice(7)))) {
    return reply.code(401).send();
  }
  const { task } = request.params;
  const view = views.get(task);
  if (view && Date.now() < view.fetched + 1000 * view.seconds) return send(request, reply, remember(task, view), 'HIT');
  return send(request, reply, await findOnce(task), 'MISS');
});

await server.listen({ port: Number(PEER_PORT), host: '127.0.0.1', backlog: 4096 });
