// One Chromium for tests in Python: node browser.cjs EXECUTABLE. Each line of standard input is a request, and each line of
// standard output its answer: {"page": N, "do": METHOD, "args": […]} -> {"result": …} or {"error": TEXT}. Requests for different
// pages run concurrently; an answer has the "id" of its request.
//
// Newer releases of playwright-core than 1.60 do not run with the Node.js of Debian 12.
const { chromium } = require('playwright-core');
const axe = require('axe-core');
const { createInterface } = require('node:readline');
const { setTimeout } = require('node:timers/promises');

const PATIENCE = 60_000; // milliseconds

const pages = new Map();

async function open(browser, { id, ...context }) {
  const page = await (await browser.newContext(context)).newPage();
  const seen = { requests: [], errors: [] };
  page.on('request', (request) => seen.requests.push(request.url()));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && seen.errors.push(message.text()));
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  pages.set(id, {
    seen: () => seen,
    wait: async (condition) => {
      // Not waitForFunction(), whose eval() a Content-Security-Policy forbids.
      for (const deadline = Date.now() + PATIENCE; ; await setTimeout(20)) {
        const value = await page.evaluate(condition);
        if (value) return value;
        if (Date.now() > deadline) throw new Error(`timed out waiting for ${condition}`);
      }
    },
    // As a proxy in between that does not support event streams.
    refuseStreams: () => page.route('**', (route) =>
      route.request().resourceType() === 'eventsource' ? route.fulfill({ status: 406 }) : route.continue()),
    offline: (off) => page.context().setOffline(off),
    axe: async () => {
      await page.evaluate(axe.source);
      return (await page.evaluate('axe.run()')).violations;
    },
    screenshot: async (options) => void await page.screenshot(options),
    close: () => page.context().close(),
    page: async (method, ...args) => void await page[method](...args),
    evaluate: (script) => page.evaluate(script),
  });
}

async function answer(browser, { id, page, do: method, args }) {
  try {
    const result = method === 'open' ? await open(browser, args[0]) : await pages.get(page)[method](...args);
    console.log(JSON.stringify({ id, result: result ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ id, error: error.message }));
  }
}

async function main() {
  // Tests run as root and in containers: without Chromium's own sandbox, and without a large /dev/shm.
  const browser = await chromium.launch({ executablePath: process.argv[2], args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  for await (const line of createInterface({ input: process.stdin })) answer(browser, JSON.parse(line));
  await browser.close();
}

main();
