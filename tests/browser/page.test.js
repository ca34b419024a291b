// The page at `/` in a real Chromium against the real hub: what its visitors see.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { eventually, startBrowser, startHub, startProxy } from './hub.js';

let hub, proxy, browser, context, channel, count = 0;

before(async () => {
  hub = await startHub();
  proxy = await startProxy(hub.port);
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  proxy?.stop();
  await hub?.stop();
});
beforeEach(async () => {
  await context?.close();
  context = await browser.newContext();
  channel = `browser-${++count}`;
});

async function open(base = hub.base) {
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.faults = [];
  page.on('pageerror', (e) => page.faults.push(e.message));
  page.on('request', (r) => r.url().startsWith(base) || /^(ws|data):/.test(r.url()) || page.faults.push(`loads ${r.url()}`));
  await page.goto(`${base}/?channel=${channel}`);
  await state(page, 'ws', 'connected');
  await state(page, 'sse', 'connected');
  return page;
}
const at = (page, testid) => page.locator(`[data-testid="${testid}"]`);
const state = (page, lane, value) => page.waitForSelector(`[data-testid="${lane}-state"][data-state="${value}"]`);
const texts = async (page, lane) => (await at(page, `${lane}-log`).locator('li .text').allTextContents()).reverse();

async function shows(page, lane, expected) {
  let seen;
  await eventually(`${lane} shows ${expected.length}`, async () => (seen = await texts(page, lane)).length >= expected.length);
  assert.deepEqual(seen, expected);
}
const numbered = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => `message ${from + i}`);
async function publish(from, to) {
  for (const text of numbered(from, to)) await hub.publish(channel, { text });
}
const countIs = (page, testid, value) => eventually(`${testid} is ${value}`, async () => (await at(page, testid).textContent()) === value);

test('two tabs show what either publishes, over both doors', async () => {
  const [one, two] = [await open(), await open()];
  await at(one, 'message').fill('from the first');
  await at(one, 'publish').click();
  await shows(two, 'sse', ['from the first']);
  await at(two, 'via-ws').check();
  await at(two, 'message').fill('from the second');
  await at(two, 'message').press('Enter');
  for (const page of [one, two]) for (const lane of ['ws', 'sse']) await shows(page, lane, ['from the first', 'from the second']);
  for (const page of [one, two]) {
    await eventually('a latency', async () => /^\d+(\.\d)? ms$/.test(await at(page, 'ws-latest').textContent()));
    await countIs(page, 'ws-received', '2');
    assert.equal(await at(page, 'error').textContent(), '');
    assert.deepEqual(page.faults, []);
  }
});

test('the second tab opens on the channel that was entered', async () => {
  const one = await open();
  channel = `${channel}:other`;
  await at(one, 'channel').fill(channel);
  await at(one, 'channel').press('Tab');
  const [two] = await Promise.all([context.waitForEvent('page'), at(one, 'second-tab').click()]);
  for (const page of [one, two]) for (const lane of ['ws', 'sse']) await state(page, lane, 'connected');
  assert.equal(await at(two, 'channel').inputValue(), channel);
  // Subscribed once the hub has answered: what this page publishes itself comes back.
  await at(one, 'via-ws').check();
  await at(one, 'message').fill('here');
  await at(one, 'publish').click();
  await shows(one, 'ws', ['here']);
  await shows(one, 'sse', ['here']);
});

test('a bad channel name is refused where it is typed', async () => {
  const page = await open();
  await at(page, 'channel').fill('~shared:x');
  await at(page, 'channel').press('Tab');
  assert.match(await at(page, 'error').textContent(), /A channel is/);
  assert.equal(await at(page, 'channel').getAttribute('aria-invalid'), 'true');
});

test('Enter in the field of the channel switches and publishes nothing', async () => {
  const page = await open();
  const published = [];
  page.on('request', (r) => r.url().endsWith('/hub/publish') && published.push(r.postDataJSON().channel));
  const before = channel;
  channel = `${channel}:other`;
  await at(page, 'channel').fill(channel);
  await at(page, 'channel').press('Enter');
  await eventually('switched', () => new URL(page.url()).searchParams.get('channel') === channel);
  for (const lane of ['ws', 'sse']) await state(page, lane, 'connected');
  await at(page, 'publish').click();
  await eventually('published', () => published.length > 0);
  await at(page, 'channel').fill('~shared:x');
  await at(page, 'channel').press('Enter');
  await at(page, 'publish').click();
  await at(page, 'burst').click();
  await at(page, 'message').press('Enter');
  assert.match(await at(page, 'error').textContent(), /A channel is/);
  await at(page, 'channel').fill(before);
  await at(page, 'channel').press('Enter');
  await eventually('back', () => new URL(page.url()).searchParams.get('channel') === before);
  assert.equal(await at(page, 'error').textContent(), '');
  await at(page, 'publish').click();
  await eventually('published again', () => published.length > 1);
  assert.deepEqual(published, [`${before}:other`, before]);
});

test('fits a very narrow screen, and no figure stands on another', async () => {
  const page = await open();
  await page.setViewportSize({ width: 280, height: 700 });
  assert.equal(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true);
  // The widest figures that come: a name, and a latency of seconds.
  const overlaps = await page.evaluate(() => {
    for (const [key, text] of [['received', '12345'], ['latest', '1234 ms'], ['median', '1234 ms'], ['recovered', '1234']]) {
      document.querySelectorAll(`[data-count=${key}]`).forEach((dd) => (dd.textContent = text));
    }
    const inked = (node) => {
      const range = document.createRange();
      range.selectNodeContents(node);
      return range.getBoundingClientRect();
    };
    const boxes = [...document.querySelectorAll('dt, dd')].map(inked);
    return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length;
  });
  assert.equal(overlaps, 0);
});

test('the page at /docs fits a very narrow screen', async () => {
  const page = await context.newPage();
  await page.setViewportSize({ width: 280, height: 700 });
  await page.goto(`${hub.base}/docs`);
  await page.waitForSelector('details');
  const width = () => page.evaluate('document.documentElement.scrollWidth');
  assert.ok((await width()) <= 280);
  await page.evaluate(() => document.querySelectorAll('details').forEach((one) => (one.open = true)));
  assert.ok((await width()) <= 280);
});

test('a publication of a back end arrives in both lanes, and the curl line says how', async () => {
  const page = await open();
  await hub.publish(channel, { text: 'from a back end' });
  await hub.publish(channel, ['any', 'JSON']);
  for (const lane of ['ws', 'sse']) await shows(page, lane, ['from a back end', '["any","JSON"]']);
  const [, url, data] = (await at(page, 'curl').textContent()).match(/^curl (\S+) .*-d '(.*)'$/);
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: data });
  assert.equal(answer.status, 200);
  for (const lane of ['ws', 'sse']) await shows(page, lane, ['from a back end', '["any","JSON"]', 'hello from curl']);
});

for (const lane of ['ws', 'sse']) {
  test(`cut by its button, ${lane} recovers what was published meanwhile exactly once`, async () => {
    const page = await open();
    await publish(1, 3);
    await shows(page, lane, numbered(1, 3));
    await at(page, `${lane}-cut`).click();
    await state(page, lane, 'closed');
    await publish(4, 13);
    await shows(page, lane === 'ws' ? 'sse' : 'ws', numbered(1, 13));
    assert.deepEqual(await texts(page, lane), numbered(1, 3));
    await at(page, `${lane}-cut`).click();
    await shows(page, lane, numbered(1, 13));
    await countIs(page, `${lane}-recovered`, '10');
    await publish(14, 14);
    await shows(page, lane, numbered(1, 14));
    await countIs(page, `${lane}-recovered`, '10');
    await countIs(page, `${lane}-gaps`, '0');
    assert.match(await at(page, `${lane}-note`).textContent(), /Recovered 10 publications/);
  });

  test(`${lane} says a gap when more was published than history keeps`, async () => {
    const page = await open();
    await publish(1, 1);
    await shows(page, lane, numbered(1, 1));
    await at(page, `${lane}-cut`).click();
    await state(page, lane, 'closed');
    await publish(2, 112);
    await at(page, `${lane}-cut`).click();
    await countIs(page, `${lane}-gaps`, '1');
    assert.match(await at(page, `${lane}-note`).textContent(), /^Gap/);
  });
}

test('torn on the way, both doors reconnect by themselves without loss or duplicate', async () => {
  const page = await open(proxy.base);
  await publish(1, 3);
  for (const lane of ['ws', 'sse']) await shows(page, lane, numbered(1, 3));
  for (let round = 0, last = 3; round < 3; round++, last += 5) {
    proxy.cut();
    for (const lane of ['ws', 'sse']) await state(page, lane, 'connecting');
    await publish(last + 1, last + 5);
    proxy.mend();
    for (const lane of ['ws', 'sse']) await shows(page, lane, numbered(1, last + 5));
  }
  for (const lane of ['ws', 'sse']) {
    await countIs(page, `${lane}-recovered`, '15');
    await countIs(page, `${lane}-gaps`, '0');
  }
  assert.deepEqual(page.faults, []);
});

test('a plain EventSource that is torn while publications flow resumes without loss or duplicate', async () => {
  const page = await context.newPage();
  await page.goto(`${proxy.base}/fanfare.js`);
  await page.evaluate((channel) => {
    window.seen = [];
    window.connections = 0;
    const source = new EventSource(`/sse/connect?channel=${channel}`);
    source.addEventListener('connected', () => window.connections++);
    source.addEventListener('gap', () => window.seen.push('gap'));
    source.onmessage = (e) => window.seen.push(JSON.parse(e.data).data);
  }, channel);
  const evaluate = (expression) => page.evaluate(expression);
  await eventually('connected', () => evaluate('connections === 1'));
  await hub.publish(channel, 0);
  await eventually('the first', () => evaluate('seen.length === 1'));
  const torn = (async () => {
    for (let round = 0; round < 3; round++) {
      await eventually('progress', () => evaluate(`connections === ${round + 1}`));
      proxy.cut();
      proxy.mend();
    }
    await eventually('the last reconnection', () => evaluate('connections === 4'));
  })();
  let last = 0, done = false;
  torn.finally(() => (done = true)).catch(() => {});
  // Paced by the hub's answers; within what history keeps between two reconnections.
  while (!done) {
    await hub.publish(channel, ++last);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await torn;
  await eventually('all of them', () => evaluate(`seen.length > ${last}`));
  assert.deepEqual(await evaluate('seen'), Array.from({ length: last + 1 }, (_, i) => i));
});
