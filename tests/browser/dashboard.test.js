// The dashboard at `/admin` in a real Chromium against the real hub, with an upstream behind it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, beforeEach, test } from 'node:test';
import { JWT_SECRET, eventually, inSeconds, startBrowser, startHub, token } from './hub.js';

const ADMIN_API_KEY = 'the admin key of the browser tests';
let hub, guarded, upstream, browser, context;
let isBroken = false;

before(async () => {
  upstream = http.createServer((_, answer) => {
    answer.statusCode = isBroken ? 500 : 200;
    answer.end('answer');
  });
  upstream.listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  const UPSTREAMS = JSON.stringify({ example: [`http://127.0.0.1:${upstream.address().port}`] });
  // As fast as it goes: no limit of the proxy's may come in between.
  hub = await startHub({ UPSTREAMS, RATE_LIMIT_MAX: '0' });
  guarded = await startHub({ AUTH_REQUIRED: 'true', JWT_SECRET, ADMIN_API_KEY });
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await hub?.stop();
  await guarded?.stop();
  upstream?.close();
});
beforeEach(async () => {
  await context?.close();
  context = await browser.newContext();
});

async function open(url) {
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.faults = [];
  page.on('pageerror', (e) => page.faults.push(e.message));
  page.on('console', (m) => /Content.Security.Policy/i.test(m.text()) && page.faults.push(m.text()));
  page.on('request', (r) => new URL(r.url()).host === new URL(url).host || /^data:/.test(r.url()) || page.faults.push(`loads ${r.url()}`));
  await page.goto(url);
  return page;
}
const at = (page, testid) => page.locator(`[data-testid="${testid}"]`);
const live = (page) => page.waitForSelector('body[data-state=live]');
const shows = (page, testid, pattern) =>
  eventually(`${testid} shows ${pattern}`, async () => pattern.test((await at(page, testid).textContent()) ?? ''));

test('shows connections, deliveries and upstreams as they come', async () => {
  const page = await open(`${hub.base}/admin`);
  await live(page);
  await shows(page, 'connections', /^0/);
  const listener = new AbortController();
  const stream = await fetch(`${hub.base}/sse/connect?channel=dashboard`, { signal: listener.signal });
  assert.equal(stream.status, 200);
  await shows(page, 'connections', /^1/);
  await shows(page, 'connections-sub', /0 ws · 1 sse/);
  await shows(page, 'channels', /^1/);
  let isDone = false;
  const publishing = (async () => {
    while (!isDone) {
      await hub.publish('dashboard', 'here');
      assert.equal((await fetch(`${hub.base}/api/example/x`)).status, 200);
    }
  })();
  await shows(page, 'deliveries', /^[1-9][\d,.K]* \/s$/);
  await shows(page, 'proxied', /^[1-9][\d,.K]* \/s$/);
  await shows(page, 'service-example', /1 of 1 healthy.*closed/s);
  isDone = true;
  await publishing;
  listener.abort();
  await shows(page, 'connections', /^0/);
  await shows(page, 'nodes', /this one/);
  assert.deepEqual(page.faults, []);
});

test('shows a breaker that opens', async () => {
  const page = await open(`${hub.base}/admin`);
  await live(page);
  isBroken = true;
  for (let i = 0; i < 5; i++) assert.equal((await fetch(`${hub.base}/api/example/x`)).status, 500);
  await shows(page, 'service-example', /0 of 1 healthy.*it answered 500, \d+ s ago.*open, \d+ s/s);
  isBroken = false;
  assert.deepEqual(page.faults, []);
});

test('fits a narrow screen', async () => {
  const page = await open(`${hub.base}/admin`);
  await page.setViewportSize({ width: 360, height: 700 });
  await live(page);
  assert.equal(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true);
});

test('asks for a key or a token, and lets in who has one', async () => {
  for (const right of [ADMIN_API_KEY, token({ sub: 'ann', exp: inSeconds(60) })]) {
    await context.close();
    context = await browser.newContext();
    const page = await open(`${guarded.base}/admin`);
    assert.equal(await at(page, 'enter').textContent(), 'Log in');
    await at(page, 'token').fill('wrong');
    await at(page, 'enter').click();
    await at(page, 'refused').waitFor();
    await at(page, 'token').fill(right);
    await at(page, 'enter').click();
    await live(page);
    assert.equal(page.url(), `${guarded.base}/admin`);
    const [cookie] = await context.cookies();
    assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, 'Strict', '/admin']);
    assert.ok(!cookie.value.includes(ADMIN_API_KEY));
    assert.equal(await page.evaluate('document.cookie'), '');
    await at(page, 'logout').click();
    await at(page, 'token').waitFor();
    assert.deepEqual(page.faults, []);
  }
});

test('a token in the address lets in once and does not stay there', async () => {
  const page = await open(`${guarded.base}/admin?token=${token({ sub: 'ann', exp: inSeconds(60) })}`);
  await live(page);
  assert.equal(page.url(), `${guarded.base}/admin`);
  await page.reload();
  await live(page);
  // From another site, whose navigations carry no strict cookie.
  await context.clearCookies();
  const elsewhere = await open(`${hub.base.replace('127.0.0.1', 'localhost')}/fanfare.js`);
  elsewhere.faults.length = 0;
  await elsewhere.evaluate((url) => { location.href = url; }, `${guarded.base}/admin?token=${token({ sub: 'ann' })}`);
  await live(elsewhere);
  assert.equal(elsewhere.url(), `${guarded.base}/admin`);
});

test('a token that ends while somebody looks ends the look', async () => {
  const page = await open(`${guarded.base}/admin?token=${token({ sub: 'ann', exp: inSeconds(4) })}`);
  await live(page);
  await at(page, 'token').waitFor();
  assert.deepEqual(page.faults, []);
});
