// Starts the real hub for a test, and what tests need around it: a browser, a proxy that can be cut, tokens,
// waiting for a condition. No test sleeps.
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const BINARY = process.env.FANFARE_BIN ?? fileURLToPath(new URL('../../target/debug/fanfare', import.meta.url));
const DEADLINE = 15_000;
export const JWT_SECRET = 'a secret of the browser tests, of no use elsewhere';

/** Repeats `check` until it returns something true. For conditions outside the browser. */
export async function eventually(what, check, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${deadline} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Below 32768, where the kernel's own choices for outgoing connections begin and could take it first. */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = net.createServer();
    const free = await new Promise((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

export async function startHub(env = {}) {
  const port = await freePort();
  // A test with a certificate of its own sets NODE_TLS_REJECT_UNAUTHORIZED.
  const encrypted = env.TLS_CERT ? 's' : '';
  const base = `http${encrypted}://127.0.0.1:${port}`;
  const child = spawn(BINARY, [], {
    // The drain of a fleet takes half a minute; here nobody has to be spread.
    env: { PATH: process.env.PATH, PORT: String(port), AUTH_REQUIRED: 'false', DRAIN_DELAY_MS: '0', DRAIN_SECONDS: '1', DATA_FILE: ':memory:', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output = (output + data).slice(-4000)));
  child.on('error', (e) => (output += e.message));
  const ended = new Promise((resolve) => child.once('close', resolve));
  await eventually('the hub answers /healthz', async () => {
    if (child.pid === undefined || child.exitCode !== null) throw new Error(`the hub did not start: ${output}`);
    return fetch(`${base}/healthz`).then((r) => r.ok, () => false);
  });
  const post = async (path, body) => {
    const answer = await fetch(base + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(env.HUB_API_KEY && { authorization: `Bearer ${env.HUB_API_KEY}` }) },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  };
  return {
    port,
    base,
    ws: `ws${encrypted}://127.0.0.1:${port}/ws/connect`,
    post,
    publish: (channel, data) => post('/hub/publish', { channel, data }),
    /** A drain: SIGTERM, then it ends by itself. */
    async stop() {
      child.kill('SIGTERM');
      let killed = false;
      const late = setTimeout(() => (killed = child.kill('SIGKILL')), DEADLINE);
      await ended;
      clearTimeout(late);
      if (killed) throw new Error(`the hub did not end on SIGTERM within ${DEADLINE} ms: ${output}`);
    },
  };
}

/** A TCP proxy before the hub whose connections can be torn: no close frame, no last chunk. */
export async function startProxy(target) {
  const sockets = new Set();
  let open = true;
  const server = net.createServer((near) => {
    if (!open) return near.destroy();
    const far = net.connect(proxy.target, '127.0.0.1');
    for (const [a, b] of [[near, far], [far, near]]) {
      sockets.add(a);
      a.on('error', () => b.destroy());
      a.on('close', (failed) => {
        sockets.delete(a);
        // `end` lets what was read before still out: a close frame, say.
        if (failed) b.destroy();
        else b.end();
      });
      a.pipe(b);
    }
  });
  server.listen(await freePort(), '127.0.0.1');
  await once(server, 'listening');
  const tear = () => sockets.forEach((socket) => socket.destroy());
  const proxy = {
    /** The port behind it, for new connections. */
    target,
    base: `http://127.0.0.1:${server.address().port}`,
    ws: `ws://127.0.0.1:${server.address().port}/ws/connect`,
    /** Tears all connections and refuses new ones until `mend`. */
    cut: () => ((open = false), tear()),
    mend: () => (open = true),
    stop: () => (tear(), server.close()),
  };
  return proxy;
}

export const startBrowser = (...more) =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // No sandbox, for CI runs as root; the rest keeps Chromium from calling home.
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', ...more,
    ],
  });

export function token(claims, secret = JWT_SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;
