// A node with TLS in a real Chromium, which chooses HTTP/2: page, event stream and WebSocket (RFC 8441) on one connection.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually, startBrowser, startHub } from './hub.js';

// For `fetch` of this process alone: the certificate is made below, and nobody vouches for it.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

let hub, browser, folder;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fanfare-tls-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert,
  ], { stdio: 'ignore' });
  hub = await startHub({ TLS_CERT: cert, TLS_KEY: key });
  browser = await startBrowser('--ignore-certificate-errors');
});
after(async () => {
  await browser?.close();
  await hub?.stop();
  if (folder) rmSync(folder, { recursive: true });
});

/** A page that notes how its WebSockets were answered: 101 in HTTP/1.1, 200 in HTTP/2. */
async function open(channel) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(15_000);
  page.handshakes = [];
  const devtools = await page.context().newCDPSession(page);
  devtools.on('Network.webSocketHandshakeResponseReceived', (e) => page.handshakes.push(e.response.status));
  await devtools.send('Network.enable');
  await page.goto(`${hub.base}/?channel=${channel}`);
  for (const lane of ['ws', 'sse']) await page.waitForSelector(`[data-testid="${lane}-state"][data-state="connected"]`);
  return page;
}
const texts = async (page, lane) =>
  (await page.locator(`[data-testid="${lane}-log"] li .text`).allTextContents()).reverse();

test('a WebSocket is a stream of the connection that brought the page', async () => {
  const page = await open('encrypted');
  const protocol = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
  assert.equal(protocol, 'h2');
  assert.deepEqual(page.handshakes, [200]);
  await page.locator('[data-testid="via-ws"]').check();
  await page.locator('[data-testid="message"]').fill('over a stream');
  await page.locator('[data-testid="publish"]').click();
  await hub.publish('encrypted', { text: 'from a back end' });
  for (const lane of ['ws', 'sse']) {
    await eventually(`${lane} shows both`, async () => (await texts(page, lane)).length === 2);
    assert.deepEqual((await texts(page, lane)).sort(), ['from a back end', 'over a stream']);
  }
});

test('a WebSocket over a stream is closed and opened again, and misses nothing', async () => {
  const page = await open('again');
  const cut = page.locator('[data-testid="ws-cut"]');
  await cut.click();
  await page.waitForSelector('[data-testid="ws-state"][data-state="closed"]');
  await hub.publish('again', { text: 'meanwhile' });
  await cut.click();
  await eventually('it was recovered', async () => (await texts(page, 'ws')).length === 1);
  assert.deepEqual(page.handshakes, [200, 200]);
});
