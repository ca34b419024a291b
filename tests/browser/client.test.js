// fanfare.js alone: a fake WebSocket and virtual time, so that backoff, refresh and silence are exact.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { Fanfare } from '../../src/admin/page/fanfare.js';

/** What the client opened, in order; a test plays the hub. */
let sockets;
class FakeWebSocket {
  constructor(url, protocols) {
    Object.assign(this, { url, protocols, sent: [], closed: false });
    sockets.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  says(...messages) {
    for (const message of messages) this.onmessage?.({ data: JSON.stringify(message) });
  }
  greets(more) {
    this.says({ type: 'connected', client_id: `c${sockets.length}`, ping_interval: 25, inactivity_timeout: 60, ...more });
  }
  ends(code, reason = '') {
    this.onclose?.({ code, reason });
  }
  /** Answers the newest command of a type. */
  answers(type, message) {
    const { id, channel } = this.command(type);
    this.says({ id, channel, ...message });
  }
  command(type) {
    return this.sent.findLast((m) => m.type === type);
  }
}

const last = () => sockets.at(-1);
/** Lets promises settle; virtual time stands. */
const settle = async () => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};
async function pass(ms) {
  mock.timers.tick(ms);
  await settle();
}

let hub, states;
async function connect(options, url = 'http://hub.test/ws/connect') {
  hub = new Fanfare(url, { WebSocket: FakeWebSocket, ...options });
  states = [];
  hub.on('state', (change) => states.push(change));
  await settle();
  return last();
}
async function connected(options, greeting) {
  const socket = await connect(options);
  socket.greets(greeting);
  return socket;
}
/** A subscription that keeps what it was told. */
function listen(channel, options) {
  const seen = [];
  hub.subscribe(channel, {
    onPublication: (m) => seen.push(m.data),
    onGap: (m) => seen.push({ gap: m.dropped }),
    onUnsubscribed: (m) => seen.push({ end: m.code }),
    ...options,
  });
  return seen;
}
const publication = (channel, offset, more) => ({ type: 'publication', channel, data: offset, offset, ...more });
const subscribed = (epoch, offset, more) => ({ type: 'subscribed', epoch, offset, ...more });

beforeEach(() => {
  sockets = [];
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  mock.method(Math, 'random', () => 0.5);
});
afterEach(() => {
  hub?.close();
  mock.timers.reset();
  mock.restoreAll();
});

test('offers the subprotocol, and the token with it, in no URL', async () => {
  const socket = await connect({ token: 'a.b.c' }, 'https://hub.test/ws/connect?session_id=s1');
  assert.equal(String(socket.url), 'wss://hub.test/ws/connect?session_id=s1');
  assert.deepEqual(socket.protocols, ['fanfare.json', 'bearer.a.b.c']);
  hub.close();
  assert.deepEqual((await connect()).protocols, ['fanfare.json']);
});

// --- Close codes ---------------------------------------------------------------------------------------------

for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 4002, 4003]) {
  test(`${code} is final`, async () => {
    const socket = await connected();
    socket.ends(code, 'because');
    await pass(10 * 60_000);
    assert.equal(sockets.length, 1);
    assert.equal(hub.state, 'closed');
    assert.equal(states.at(-1).code, code);
    assert.equal(states.at(-1).reason, 'because');
  });
}

for (const code of [1001, 1005, 1006, 1012, 4004, 4999]) {
  test(`${code} reconnects with jitter, at once`, async () => {
    const socket = await connected();
    socket.ends(code);
    assert.equal(hub.state, 'connecting');
    assert.equal(states.at(-1).delay, 250);
    await pass(249);
    assert.equal(sockets.length, 1);
    await pass(1);
    assert.equal(sockets.length, 2);
  });
}

for (const code of [1011, 1013]) {
  test(`${code} never reconnects at once, and backs off`, async () => {
    mock.method(Math, 'random', () => 0);
    await connected();
    const delays = [];
    for (let i = 0; i < 8; i++) {
      last().ends(code);
      delays.push(states.at(-1).delay);
      await pass(delays.at(-1));
      last().greets();
    }
    assert.deepEqual(delays, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  });
}

test('a drain spreads its clients: full jitter', async () => {
  for (const [random, delay] of [[0, 0], [0.25, 125], [0.999, 499.5]]) {
    mock.method(Math, 'random', () => random);
    (await connected()).ends(1012);
    assert.equal(states.at(-1).delay, delay);
    hub.close();
  }
});

test('failed attempts back off up to the most; a connection that lasted begins anew', async () => {
  const socket = await connect({ minDelay: 100, maxDelay: 1000 });
  socket.ends(1006);
  const delays = [states.at(-1).delay];
  for (let i = 0; i < 5; i++) {
    await pass(delays.at(-1));
    last().ends(1006);
    delays.push(states.at(-1).delay);
  }
  assert.deepEqual(delays, [50, 100, 200, 400, 500, 500]);
  await pass(500);
  last().greets();
  await pass(1001);
  last().ends(1006);
  assert.equal(states.at(-1).delay, 50);
});

test('close is final until connect, which resumes the subscriptions', async () => {
  const socket = await connected();
  const seen = listen('news');
  socket.answers('subscribe', subscribed('e', 4));
  hub.close();
  assert.ok(socket.closed);
  await pass(60_000);
  assert.equal(sockets.length, 1);
  hub.connect();
  await settle();
  last().greets();
  assert.deepEqual(last().command('subscribe').recover, { epoch: 'e', offset: 4 });
  last().answers('subscribe', subscribed('e', 4, { recovered: true }));
  last().says(publication('news', 5));
  assert.deepEqual(seen, [5]);
});

test('connect ends the wait, and does nothing while there is a connection', async () => {
  const socket = await connected();
  hub.connect();
  socket.ends(1013);
  hub.connect();
  hub.connect();
  await settle();
  assert.equal(sockets.length, 2);
  await pass(10_000);
  assert.equal(sockets.length, 2);
});

// --- Silence -------------------------------------------------------------------------------------------------

test('pings when the hub is silent, and gives up a connection that stays so', async () => {
  const socket = await connected({}, { ping_interval: 10, inactivity_timeout: 5 });
  await pass(9_999);
  assert.equal(socket.sent.length, 0);
  socket.says({ type: 'pong' });
  await pass(9_999);
  assert.equal(socket.sent.length, 0);
  await pass(1);
  assert.deepEqual(socket.sent, [{ type: 'ping' }]);
  socket.says({ type: 'pong' });
  await pass(10_000);
  assert.equal(socket.sent.length, 2);
  await pass(4_999);
  assert.equal(hub.state, 'connected');
  await pass(1);
  assert.equal(hub.state, 'connecting');
  assert.equal(states.at(-1).code, 4004);
  assert.ok(socket.closed);
  await pass(250);
  assert.equal(sockets.length, 2);
});

test('gives up an attempt that is never answered', async () => {
  await connect();
  await pass(20_000);
  assert.equal(states.at(-1).code, 4004);
  await pass(250);
  assert.equal(sockets.length, 2);
});

test('an attempt that errs without a close is lost once, with one that follows as well', async () => {
  const socket = await connect();
  const { onerror } = socket;
  onerror({});
  socket.onclose?.({ code: 1006 });
  onerror({});
  assert.deepEqual(states.map(({ code }) => code), [1006]);
  await pass(250);
  assert.equal(sockets.length, 2);
  last().greets();
  onerror({});
  last().onerror({});
  assert.equal(hub.state, 'connected');
});

test('what a given-up socket still says is not heard', async () => {
  const socket = await connected({}, { ping_interval: 1, inactivity_timeout: 1 });
  const seen = listen('news');
  socket.answers('subscribe', subscribed('e', 0));
  await pass(1000);
  await pass(1000);
  await pass(250);
  last().greets();
  last().answers('subscribe', subscribed('e', 0, { recovered: true }));
  socket.says(publication('news', 1));
  socket.ends(1006);
  assert.deepEqual(seen, []);
  assert.equal(hub.state, 'connected');
});

// --- Recovery ------------------------------------------------------------------------------------------------

test('asks for the position of the last publication, and takes no duplicate', async () => {
  let socket = await connected();
  const seen = listen('news');
  assert.equal(socket.command('subscribe').recover, undefined);
  socket.answers('subscribe', subscribed('e', 2));
  socket.says(publication('news', 3), publication('news', 3), publication('news', 2), publication('news', 4));
  assert.deepEqual(seen, [3, 4]);
  socket.ends(1012);
  await pass(250);
  socket = last();
  socket.greets();
  assert.deepEqual(socket.command('subscribe').recover, { epoch: 'e', offset: 4 });
  // Sent between `connected` and `subscribed`: of a subscription of the token, and recovered in a moment.
  socket.says(publication('news', 6));
  socket.answers('subscribe', subscribed('e', 4, { recovered: true }));
  socket.says(publication('news', 5), publication('news', 6));
  assert.deepEqual(seen, [3, 4, 5, 6]);
});

test('cut off in the middle of catching up, it asks for the rest', async () => {
  (await connected()) && listen('news');
  last().answers('subscribe', subscribed('e', 0));
  for (const [asked, got] of [[0, 1], [1, 2], [2, 3]]) {
    last().ends(1006);
    await pass(30_000);
    last().greets();
    assert.deepEqual(last().command('subscribe').recover, { epoch: 'e', offset: asked });
    last().answers('subscribe', subscribed('e', asked, { recovered: true }));
    last().says(publication('news', got));
  }
});

test('publications that arrive together with the answer are not lost', async () => {
  const socket = await connected();
  const seen = listen('news', { recover: { epoch: 'e', offset: 7 } });
  const { id, recover } = socket.command('subscribe');
  assert.deepEqual(recover, { epoch: 'e', offset: 7 });
  socket.says({ id, channel: 'news', ...subscribed('e', 7, { recovered: true }) }, publication('news', 8));
  assert.deepEqual(seen, [8]);
});

test('follows a new epoch, announced by its first publication or by a gap', async () => {
  const socket = await connected();
  const seen = listen('news');
  socket.answers('subscribe', subscribed('a', 40));
  socket.says(publication('news', 1, { epoch: 'b' }), publication('news', 2));
  assert.deepEqual(seen, [1, 2]);
  socket.says({ type: 'gap', channel: 'news', dropped: null, epoch: 'c', offset: 9 }, publication('news', 9), publication('news', 10));
  assert.deepEqual(seen, [1, 2, { gap: null }, 10]);
  socket.ends(1001);
  await pass(250);
  last().greets();
  assert.deepEqual(last().command('subscribe').recover, { epoch: 'c', offset: 10 });
});

test('publications behind a gap are delivered, whatever the gap says of the top', async () => {
  const socket = await connected();
  const seen = listen('news');
  socket.answers('subscribe', subscribed('e', 1));
  socket.says({ type: 'gap', channel: 'news', dropped: 2, epoch: 'e', offset: 5 }, publication('news', 4), publication('news', 5));
  assert.deepEqual(seen, [{ gap: 2 }, 4, 5]);
});

test('says a gap when the position is no longer there, and goes on from the top', async () => {
  await connected();
  const seen = listen('news');
  last().answers('subscribe', subscribed('a', 3));
  last().ends(1006);
  await pass(250);
  last().greets();
  last().answers('subscribe', subscribed('b', 1, { recovered: false }));
  last().says(publication('news', 1), publication('news', 2));
  assert.deepEqual(seen, [{ gap: null }, 2]);
});

test('without recovery nothing is asked and nothing is said', async () => {
  await connected();
  const seen = listen('news', { recover: false });
  last().answers('subscribe', subscribed('a', 3));
  last().ends(1006);
  await pass(250);
  last().greets();
  assert.equal(last().command('subscribe').recover, undefined);
  last().answers('subscribe', subscribed('a', 9));
  assert.deepEqual(seen, []);
});

test('a channel without history delivers all it is sent', async () => {
  const socket = await connected();
  const seen = listen('cursor');
  socket.answers('subscribe', { type: 'subscribed' });
  const { offset, ...bare } = publication('cursor', 1);
  socket.says(bare, bare);
  assert.deepEqual(seen, [1, 1]);
});

// --- Listeners that throw ------------------------------------------------------------------------------------

test('what listeners throw is reported, and stops nothing', async () => {
  const reports = [];
  mock.method(globalThis, 'queueMicrotask', (report) => reports.push(report));
  const bug = () => { throw new Error('a bug of the application'); };
  await connect();
  const stop = hub.on('state', bug);
  const seen = [];
  hub.on('state', ({ state }) => seen.push(state));
  last().greets();
  last().ends(1006);
  await pass(250);
  last().greets();
  stop();
  assert.deepEqual(seen, ['connected', 'connecting', 'connecting', 'connected']);
  assert.equal(reports.length, 4);
  for (const report of reports) assert.throws(report, /a bug of the application/);
  hub.on('publication', ({ data }) => seen.push(data));
  hub.subscribe('news', { onSubscribed: bug, onPublication: bug, onGap: bug, onUnsubscribed: bug, recover: { epoch: 'old', offset: 1 } });
  last().answers('subscribe', subscribed('e', 1, { recovered: false }));
  last().says(publication('news', 2), { type: 'unsubscribed', channel: 'news' });
  assert.equal(reports.length, 8);
  assert.equal(seen.at(-1), 2);
});

// --- Channels of the token -----------------------------------------------------------------------------------

test('a channel of the token is live at once, and restarted where it was cut', async () => {
  const channels = { mine: { epoch: 'e', offset: 5 } };
  const socket = await connect();
  const seen = listen('mine');
  socket.greets({ channels });
  assert.deepEqual(socket.sent, []);
  socket.says(publication('mine', 6));
  socket.ends(1012);
  await pass(250);
  last().greets({ channels: { mine: { epoch: 'e', offset: 9 } } });
  last().says(publication('mine', 10));
  assert.deepEqual(last().command('subscribe').recover, { epoch: 'e', offset: 6 });
  last().answers('subscribe', subscribed('e', 6, { recovered: true }));
  last().says(...[7, 8, 9, 10].map((offset) => publication('mine', offset)));
  assert.deepEqual(seen, [6, 7, 8, 9, 10]);
});

test('a channel of the token tells that it is subscribed, as the others do', async () => {
  const socket = await connect();
  const told = [];
  const onSubscribed = ({ channel, epoch, offset, recovered }) => told.push([channel, epoch, offset, recovered]);
  hub.subscribe('mine', { onSubscribed });
  hub.subscribe('typing', { onSubscribed });
  // Taken over in the same breath as it becomes known, it is told once.
  const stop = hub.on('state', ({ state }) => state === 'connected' && hub.subscribe('later', { onSubscribed }));
  socket.greets({ channels: { mine: { epoch: 'e', offset: 5 }, typing: null, later: { epoch: 'e', offset: 7 }, latest: { epoch: 'e', offset: 8 } } });
  stop();
  await settle();
  assert.deepEqual(told, [['mine', 'e', 5, undefined], ['typing', undefined, undefined, undefined], ['later', 'e', 7, undefined]]);
  socket.says(publication('latest', 9));
  hub.subscribe('latest', { onSubscribed });
  assert.equal(told.length, 3);
  await settle();
  assert.deepEqual(told[3], ['latest', 'e', 9, undefined]);
  const gone = hub.subscribe('gone', { onSubscribed });
  gone.unsubscribe();
  assert.deepEqual(socket.sent.map(({ type, channel }) => [type, channel]), [['subscribe', 'gone'], ['unsubscribe', 'gone']]);
  // Where it stands now it starts from after a cut, and the answer tells it.
  socket.ends(1012);
  await pass(250);
  told.length = 0;
  last().greets({ channels: { mine: { epoch: 'e', offset: 5 }, typing: null } });
  assert.deepEqual(told, [['typing', undefined, undefined, undefined]]);
  const { id } = last().sent.find((m) => m.channel === 'mine');
  last().says({ id, channel: 'mine', ...subscribed('e', 5, { recovered: true }) });
  assert.deepEqual(told[1], ['mine', 'e', 5, true]);
});

test('a channel of the token that nobody subscribed reaches the hub, and recovers too', async () => {
  const socket = await connect();
  const seen = [];
  hub.on('publication', (m) => seen.push(m.data));
  socket.greets({ channels: { mine: { epoch: 'e', offset: 0 } } });
  socket.says(publication('mine', 1), publication('mine', 1));
  socket.ends(1006);
  await pass(250);
  last().greets({ channels: { mine: { epoch: 'e', offset: 2 } } });
  last().answers('subscribe', subscribed('e', 1, { recovered: true }));
  last().says(publication('mine', 2));
  const adopted = listen('mine');
  last().says(publication('mine', 3));
  assert.deepEqual(seen, [1, 2, 3]);
  assert.deepEqual(adopted, [3]);
});

test('presence on a channel of the token restarts it where the token stood', async () => {
  const socket = await connect();
  listen('mine', { presence: true });
  socket.greets({ channels: { mine: { epoch: 'e', offset: 5 } } });
  const { id, ...command } = socket.command('subscribe');
  assert.deepEqual(command, { type: 'subscribe', channel: 'mine', recover: { epoch: 'e', offset: 5 }, presence: true });
});

test('a subscription that the back end made is kept', async () => {
  const socket = await connected();
  const seen = [];
  hub.on('publication', (m) => seen.push(m.data));
  socket.says({ type: 'subscribed', channel: 'given', epoch: 'e', offset: 1 }, publication('given', 2));
  assert.deepEqual(seen, [2]);
  socket.ends(1012);
  await pass(250);
  last().greets();
  assert.deepEqual(last().command('subscribe').recover, { epoch: 'e', offset: 2 });
});

// --- Ends of subscriptions -----------------------------------------------------------------------------------

test('a refused subscription is told and not tried again', async () => {
  const socket = await connected();
  const seen = listen('secret');
  socket.answers('subscribe', { type: 'error', code: 'forbidden', message: 'no' });
  socket.ends(1012);
  await pass(250);
  last().greets();
  assert.deepEqual(last().sent, []);
  assert.deepEqual(seen, [{ end: 'forbidden' }]);
});

test('a subscription that was cut off before its answer starts again', async () => {
  const socket = await connected();
  const seen = listen('news');
  assert.ok(socket.command('subscribe'));
  socket.ends(1006);
  await pass(250);
  last().greets();
  last().answers('subscribe', subscribed('e', 1));
  last().says(publication('news', 2));
  assert.deepEqual(seen, [2]);
});

test('a subscription that failed for want of the broker is tried again', async () => {
  const socket = await connected();
  const seen = listen('news');
  socket.answers('subscribe', { type: 'error', code: 'broker_unavailable', message: 'away' });
  await pass(3000);
  assert.equal(socket.sent.length, 2);
  socket.answers('subscribe', subscribed('e', 1));
  socket.says(publication('news', 2));
  assert.deepEqual(seen, [2]);
});

test('a subscription that came too fast is tried again, less and less often', async () => {
  const socket = await connected();
  const seen = listen('news');
  const asked = () => socket.sent.filter((m) => m.type === 'subscribe').length;
  const refuses = () => socket.answers('subscribe', { type: 'error', code: 'rate_limited', message: 'too fast' });
  for (const [i, pause] of [3000, 6000, 12_000].entries()) {
    refuses();
    await pass(pause - 1);
    assert.equal(asked(), i + 1);
    await pass(1);
    assert.equal(asked(), i + 2);
  }
  socket.answers('subscribe', subscribed('e', 1));
  socket.says(publication('news', 2));
  assert.deepEqual(seen, [2]);
});

test('a subscription that waits to be tried again starts with the next connection, once', async () => {
  const socket = await connected();
  listen('news');
  const other = hub.subscribe('other');
  for (const { id, channel } of [...socket.sent]) socket.says({ id, channel, type: 'error', code: 'rate_limited', message: 'too fast' });
  other.unsubscribe();
  socket.ends(1006);
  await pass(250);
  last().greets();
  last().answers('subscribe', subscribed('e', 1));
  await pass(10_000);
  assert.deepEqual(last().sent.map((m) => m.channel), ['news']);
});

test('a subscription that the hub ends is told', async () => {
  const socket = await connected();
  const seen = listen('news');
  socket.answers('subscribe', subscribed('e', 1));
  socket.says({ type: 'unsubscribed', channel: 'news', code: 'moved', reason: 'by the API' }, publication('news', 2));
  assert.deepEqual(seen, [{ end: 'moved' }]);
});

test('subscribing anew after unsubscribing is not ended by the first answer', async () => {
  const socket = await connected();
  const first = hub.subscribe('news');
  first.unsubscribe();
  first.unsubscribe();
  const seen = listen('news');
  assert.throws(() => hub.subscribe('news'), { code: 'already_subscribed' });
  assert.deepEqual(socket.sent.map((m) => m.type), ['subscribe', 'unsubscribe', 'subscribe']);
  const [a, b, c] = socket.sent;
  socket.says({ id: a.id, channel: 'news', ...subscribed('e', 1) }, publication('news', 2));
  socket.says({ id: b.id, type: 'unsubscribed', channel: 'news' });
  socket.says({ id: c.id, channel: 'news', ...subscribed('e', 2) }, publication('news', 3));
  assert.deepEqual(seen, [3]);
});

// --- Commands ------------------------------------------------------------------------------------------------

test('commands wait for the connection, and answers find them', async () => {
  const socket = await connect();
  const published = hub.publish('news', { a: 1 }, { key: 'k' });
  const history = hub.history('news', { limit: 5, since: { epoch: 'e', offset: 1 } });
  const presence = hub.presence('news');
  assert.deepEqual(socket.sent, []);
  socket.greets();
  const [p, h, w] = socket.sent;
  assert.deepEqual(p, { type: 'publish', channel: 'news', data: { a: 1 }, key: 'k', id: p.id });
  assert.deepEqual(h, { type: 'history', channel: 'news', limit: 5, since: { epoch: 'e', offset: 1 }, id: h.id });
  assert.deepEqual(w, { type: 'presence', channel: 'news', id: w.id });
  socket.says({ type: 'error', id: h.id, code: 'forbidden', message: 'no' }, { type: 'published', id: p.id, channel: 'news', offset: 1 });
  assert.equal((await published).offset, 1);
  await assert.rejects(history, { code: 'forbidden', message: 'no' });
  socket.ends(1006);
  await assert.rejects(presence, { code: 'disconnected' });
});

test('commands that were not sent outlive a failed attempt, and end with close', async () => {
  const socket = await connect();
  const published = hub.publish('news', 1);
  socket.ends(1006);
  await pass(250);
  last().greets();
  assert.equal(last().sent.length, 1);
  last().answers('publish', { type: 'published' });
  await published;
  last().ends(4003);
  await assert.rejects(hub.publish('news', 2), { code: 'disconnected' });
});

test('pending commands are bounded', async () => {
  await connect();
  const all = Array.from({ length: 1000 }, () => hub.publish('news', 1));
  await assert.rejects(hub.publish('news', 1), { code: 'too_many_commands' });
  hub.close();
  assert.ok((await Promise.allSettled(all)).every(({ reason }) => reason.code === 'disconnected'));
});

test('commands that wait through an outage, as many as may, leave the subscriptions alone', async () => {
  const socket = await connected();
  const seen = listen('news');
  socket.answers('subscribe', subscribed('e', 1));
  socket.ends(1006);
  const all = Array.from({ length: 1000 }, (_, i) => hub.publish('other', i));
  await pass(250);
  last().greets();
  last().answers('subscribe', subscribed('e', 1, { recovered: true }));
  last().says(publication('news', 2));
  assert.deepEqual(seen, [2]);
  // Each answer makes room for one more.
  await assert.rejects(hub.publish('other', 1000), { code: 'too_many_commands' });
  const [{ id }] = last().sent.filter((m) => m.type === 'publish');
  last().says({ type: 'published', id, channel: 'other' });
  await all[0];
  const more = hub.publish('other', 1000);
  assert.equal(last().sent.filter((m) => m.type === 'publish').length, 1001);
  hub.close();
  await Promise.allSettled([...all, more]);
});

test('what cannot be JSON rejects at once and wedges nothing', async () => {
  const socket = await connect();
  const circle = {};
  circle.self = circle;
  const first = hub.publish('news', 'one');
  for (const data of [1n, circle]) await assert.rejects(hub.publish('news', data), { code: 'bad_request' });
  const data = { n: 2 };
  const second = hub.publish('news', data);
  data.n = 'changed since';
  socket.greets();
  assert.equal(hub.state, 'connected');
  assert.deepEqual(socket.sent.map((m) => m.data), ['one', { n: 2 }]);
  await assert.rejects(hub.publish('news', 3n), { code: 'bad_request' });
  const seen = listen('odd', { recover: { epoch: 1n, offset: 1 } });
  assert.deepEqual(seen, [{ end: 'bad_request' }]);
  hub.close();
  await Promise.allSettled([first, second]);
});

// --- Tokens --------------------------------------------------------------------------------------------------

test('refreshes the token ahead of its end, again and again', async () => {
  let n = 0;
  const socket = await connected({ getToken: async () => `t${++n}` }, { expires_in: 100 });
  assert.deepEqual(socket.protocols, ['fanfare.json', 'bearer.t1']);
  const chat = () => socket.says({ type: 'pong' });
  await pass(79_999);
  chat();
  assert.equal(socket.command('refresh'), undefined);
  await pass(1);
  assert.equal(socket.command('refresh').token, 't2');
  socket.answers('refresh', { type: 'refreshed', expires_in: 50 });
  await settle();
  await pass(40_000);
  assert.equal(socket.command('refresh').token, 't3');
});

test('a getToken that fails before the end is asked again', async () => {
  let n = 0;
  const getToken = async () => {
    if (++n === 2) throw new Error('away');
    return `t${n}`;
  };
  const socket = await connected({ getToken }, { expires_in: 100 });
  await pass(80_000);
  assert.equal(socket.command('refresh'), undefined);
  await pass(16_000);
  assert.equal(socket.command('refresh').token, 't3');
});

test('a token of years does not overflow the timer', async () => {
  let n = 0;
  const socket = await connected({ getToken: () => `t${++n}` }, { expires_in: 10 * 365 * 86_400 });
  await pass(1000);
  assert.equal(n, 1);
  assert.equal(socket.sent.length, 0);
});

test('4001 reconnects with a new token, and is final when there is none to be had', async () => {
  let n = 0;
  (await connected({ getToken: () => `t${++n}` })).ends(4001);
  await pass(250);
  assert.deepEqual(last().protocols, ['fanfare.json', 'bearer.t2']);
  hub.close();
  (await connected({ token: 'old' })).ends(4001);
  await pass(60_000);
  assert.equal(hub.state, 'closed');
});

test('a refused handshake asks for another token, a lost connection keeps its own', async () => {
  let n = 0;
  const socket = await connect({ getToken: () => `t${++n}` });
  socket.ends(1006);
  await pass(250);
  assert.equal(last().protocols[1], 'bearer.t2');
  last().greets();
  last().ends(1006);
  await pass(1000);
  assert.equal(sockets.length, 3);
  assert.equal(last().protocols[1], 'bearer.t2');
});

test('a WebSocket whose constructor throws is tried again, backing off', async () => {
  let throwing = 2;
  class Refusing extends FakeWebSocket {
    constructor(...args) {
      if (throwing-- > 0) throw new SyntaxError('no such protocol');
      super(...args);
    }
  }
  const tokens = ['not a word', 'no word either', 'good'];
  // A socket that there never was is not closed, and the one of before is not closed twice.
  await connect({ WebSocket: Refusing, getToken: () => tokens.shift() });
  assert.equal(hub.state, 'connecting');
  assert.deepEqual(states, [{ state: 'connecting', code: 1011, reason: 'no such protocol', delay: 750 }]);
  await pass(750);
  assert.equal(states.at(-1).delay, 1500);
  assert.equal(sockets.length, 0);
  await pass(1500);
  last().greets();
  assert.equal(hub.state, 'connected');
  assert.deepEqual(last().protocols, ['fanfare.json', 'bearer.good']);
});

test('a WebSocket whose constructor throws at once leaves a client that can be closed', async () => {
  class Throwing {
    constructor() {
      throw new Error('not here');
    }
  }
  hub = new Fanfare('ws://hub.test/', { WebSocket: Throwing });
  assert.equal(hub.state, 'connecting');
  hub.close();
  assert.equal(hub.state, 'closed');
  await pass(60_000);
  assert.equal(hub.state, 'closed');
});

test('a getToken that fails at the start is tried again, backing off', async () => {
  let n = 0;
  const getToken = async () => {
    if (++n < 3) throw new Error('away');
    return 'there';
  };
  await connect({ getToken });
  assert.equal(states.at(-1).delay, 750);
  await pass(750);
  assert.equal(states.at(-1).delay, 1500);
  await pass(1500);
  assert.equal(sockets.length, 1);
  assert.equal(last().protocols[1], 'bearer.there');
});

test('closed while a token is awaited, it stays closed', async () => {
  let give;
  await connect({ getToken: () => new Promise((resolve) => (give = resolve)) });
  hub.close();
  give('late');
  await pass(60_000);
  assert.equal(sockets.length, 0);
});
