/*! Fanfare's client: the plain protocol in browsers and Node. Manual: fanfare.d.ts, source: fanfare.src.js */

// One connection that outlives its sockets. The hub speaks first (`connected`); every command carries an id
// and its answer the same; what has no id is a push. A position (epoch, offset) per subscription is all that
// survives a cut, and all that recovery needs. fanfare.js is this file, minified (`npm run build` in
// tests/browser, where a test compares the two).

// After these close codes the hub would only say the same again.
const FINAL = [1000, 1002, 1003, 1007, 1008, 1009, 4002, 4003];
// What the application asked and is not answered, at most: a long outage must not fill the memory. Subscriptions
// are not counted, for a full house must not keep them from starting again.
const COMMANDS_MAX = 1000;
const ignore = () => {};
const fault = (code, message) => Object.assign(Error(message), { code });

export function Fanfare(url = '/ws/connect', options = {}) {
	const hub = this, subs = new Map(), asked = new Map(), listeners = {};
	const { minDelay = 500, maxDelay = 30_000, getToken, WebSocket = globalThis.WebSocket } = options;
	let { token } = options, lastId = 0, pending = 0, attempt = 0, failures = 0;
	let socket, open, since, retry, pulse, renewal, ping, patience;
	url = new URL(url, globalThis.location?.href);
	url.protocol = url.protocol.replace('http', 'ws');

	// What the application's functions throw is reported as theirs, and stops nothing here.
	function call(owner, name, m) {
		try {
			owner?.[name]?.(m);
		} catch (e) {
			queueMicrotask(() => { throw e; });
		}
	}
	const emit = (event, m) => listeners[event]?.forEach((f) => call({ f }, 'f', m));
	const tell = (state, more) => emit('state', { state: (hub.state = state), ...more });

	// Callbacks, because a promise settles only after the frames that arrive together with the answer:
	// the first publications after `subscribed` would be taken for old ones.
	function command(m, done, fail) {
		if (hub.state === 'closed') return fail(fault('disconnected', 'closed'));
		let text;
		try {
			// Now, while somebody hears what cannot be JSON (a BigInt, a circle): when the connection comes nobody does.
			text = JSON.stringify({ ...m, id: ++lastId });
		} catch (e) {
			return fail(fault('bad_request', e.message));
		}
		asked.set(lastId, { text, done, fail, sent: open });
		if (open) socket.send(text);
	}
	const ask = (m) => new Promise((done, fail) => command(m, done, fail));
	async function request(m) {
		if (pending >= COMMANDS_MAX) throw fault('too_many_commands', 'too many commands pending');
		pending++;
		try {
			return await ask(m);
		} finally {
			pending--;
		}
	}

	function add(channel) {
		const sub = { channel, options: {}, given: true, failures: 0 };
		sub.unsubscribe = () => {
			if (subs.get(channel) !== sub) return;
			subs.delete(channel);
			clearTimeout(sub.retry);
			// With an id, so that the answer is not taken for the end of a newer subscription.
			if (open) command({ type: 'unsubscribe', channel }, ignore, ignore);
		};
		subs.set(channel, sub);
		return sub;
	}
	function start(sub) {
		const { channel, options, position: recover } = sub;
		const current = () => subs.get(channel) === sub;
		clearTimeout(sub.retry);
		sub.live = false;
		command({ type: 'subscribe', channel, recover, presence: options.presence },
			(m) => current() && subscribed(sub, m),
			(e) => {
				// After a cut it starts again with the next connection.
				if (e.code === 'disconnected' || !current()) return;
				if (/^((broker_)?unavailable|rate_limited)$/.test(e.code)) {
					const pause = Math.min(maxDelay, 2000 * 2 ** sub.failures++) * (1 + Math.random());
					sub.retry = setTimeout(() => current() && start(sub), pause);
					return;
				}
				subs.delete(channel);
				call(options, 'onUnsubscribed', e);
			});
	}
	function subscribed(sub, m) {
		clearTimeout(sub.retry);
		sub.live = true;
		sub.failures = 0;
		sub.position = { epoch: m.epoch ?? '', offset: m.offset ?? 0 };
		call(sub.options, 'onSubscribed', m);
		if (m.recovered === false) call(sub.options, 'onGap', { ...m, dropped: null });
	}

	// For channels of the token, which no answer tells of.
	function sayLive(sub) {
		const { channel, position } = sub;
		if (sub.live && subs.get(channel) === sub) {
			call(sub.options, 'onSubscribed', { type: 'subscribed', channel, ...position });
		}
	}

	// Keeps the position. False for what is not to be delivered: from before `subscribed`, or a duplicate.
	function track(sub, { type, epoch, offset }) {
		const at = sub.position ?? {};
		if (!sub.live) return false;
		if (epoch && epoch !== at.epoch) sub.position = { epoch, offset };
		// A gap in the same epoch leaves the offset: what it skipped may yet be recovered after a cut, and
		// publications that were pending behind it may have lower offsets than where the stream stands.
		else if (offset && type === 'publication') {
			if (offset <= at.offset) return false;
			sub.position = { ...at, offset };
		}
		return true;
	}

	function receive(m) {
		const { type, channel, id } = m, sub = subs.get(channel), c = asked.get(id);
		if (type === 'connected') connected(m);
		// Browsers hide protocol pings: break a silence with one of our own.
		clearTimeout(pulse);
		pulse = setTimeout(() => {
			socket.send('{"type":"ping"}');
			pulse = setTimeout(drop, patience, 4004, 'silence');
		}, ping);
		if (asked.delete(id)) return type === 'error' ? c.fail(fault(m.code, m.message)) : c.done(m);
		if (type === 'subscribed') return subscribed(sub ?? add(channel), m);
		if (type === 'unsubscribed') subs.delete(channel);
		else if (channel && !(sub && track(sub, m))) return;
		call(sub?.options, 'on' + type[0].toUpperCase() + type.slice(1), m);
		emit(type, m);
	}

	function connected(m) {
		hub.clientId = m.client_id;
		open = true;
		since = Date.now();
		ping = (m.ping_interval || 25) * 1000;
		patience = (m.inactivity_timeout || 60) * 1000;
		// The token subscribed these. Live already, unless the subscription is to restart where it was cut off
		// or with presence.
		for (const channel in m.channels) {
			const sub = subs.get(channel) ?? add(channel);
			sub.live = !sub.position && !sub.options.presence;
			sub.position ??= m.channels[channel];
		}
		const live = [...subs.values()].filter((sub) => sub.live && !sub.given);
		subs.forEach((sub) => sub.live || start(sub));
		asked.forEach((c) => {
			if (!c.sent) socket.send(c.text);
			c.sent = true;
		});
		renew(m.expires_in);
		tell('connected');
		live.forEach(sayLive);
	}
	function renew(seconds) {
		clearTimeout(renewal);
		// A timer holds 31 bits of milliseconds; too early does no harm.
		if (getToken && seconds) renewal = setTimeout(async () => {
			try {
				token = await getToken();
				renew((await ask({ type: 'refresh', token })).expires_in);
			} catch {
				if (open) renew(Math.max(seconds / 5, 1));
			}
		}, Math.min(seconds * 800, 2 ** 31 - 1));
	}

	function drop(code, reason) {
		// A half-open socket would take minutes to say `close`.
		if (socket) {
			// Closing may err as well, at once, and an error without a listener ends a Node process.
			socket.onmessage = socket.onclose = null;
			socket.onerror = ignore;
			socket.close();
		}
		lost(code, reason);
	}
	function lost(code, reason) {
		[retry, pulse, renewal].forEach(clearTimeout);
		// Only a connection that lasted resets the backoff.
		if (open && Date.now() - since > maxDelay) failures = 0;
		// A refused handshake does not say why: it may be the token.
		if (getToken && (code === 4001 || !open)) token = null;
		attempt++;
		open = socket = retry = null;
		const final = FINAL.includes(code) || (code === 4001 && !getToken);
		const back = code === 1011 || code === 1013;
		const delay = Math.min(maxDelay, minDelay * 2 ** failures++) * (back + Math.random());
		if (!final) retry = setTimeout(hub.connect, delay);
		subs.forEach((sub) => {
			clearTimeout(sub.retry);
			sub.live = false;
			if (sub.options.recover === false) sub.position = undefined;
		});
		// Whether a command that had been sent took effect is unknown; one that had not waits on.
		asked.forEach((c, id) => {
			if (!final && !c.sent) return;
			asked.delete(id);
			c.fail(fault('disconnected', reason));
		});
		tell(final ? 'closed' : 'connecting', { code, reason, delay });
	}

	hub.connect = async () => {
		if (hub.state !== 'closed' && !retry) return;
		clearTimeout(retry);
		retry = null;
		const mine = ++attempt;
		tell('connecting');
		try {
			if (getToken) token ??= await getToken();
			// That may throw as well: by a token that is no protocol's name, or by a page that may not.
			if (mine === attempt) socket = new WebSocket(url, ['fanfare.json', ...(token ? ['bearer.' + token] : [])]);
		} catch (e) {
			if (mine === attempt) lost(1011, e.message);
		}
		if (mine !== attempt) return;
		socket.onmessage = (e) => receive(JSON.parse(e.data));
		socket.onclose = (e) => lost(e.code, e.reason);
		// `close` follows and says more, but in Node 20 not after a refused handshake.
		socket.onerror = () => mine === attempt && !open && drop(1006, 'refused');
		pulse = setTimeout(drop, 20_000, 4004, 'no answer');
	};
	hub.close = () => drop(1000, 'closed');
	hub.on = (event, f) => {
		(listeners[event] ??= new Set()).add(f);
		return () => listeners[event].delete(f);
	};
	hub.subscribe = (channel, options = {}) => {
		const sub = subs.get(channel) ?? add(channel);
		if (!sub.given) throw fault('already_subscribed', channel);
		Object.assign(sub, { options, given: false });
		if (options.recover?.epoch) sub.position = options.recover;
		if (open && (!sub.live || options.presence)) start(sub);
		else if (open) queueMicrotask(() => sayLive(sub));
		return sub;
	};
	hub.publish = (channel, data, options) => request({ ...options, type: 'publish', channel, data });
	hub.history = (channel, options) => request({ ...options, type: 'history', channel });
	hub.presence = (channel) => request({ type: 'presence', channel });
	hub.state = 'closed';
	hub.connect();
}
