// What the scripts share: where the hub is, how a stamped publication is sent, and how its latency is read. The stamp
// is the publisher's wall clock in milliseconds, so publisher and subscribers must be on one machine.
import http from 'k6/http';
import { Counter, Rate, Trend } from 'k6/metrics';

export const BASE_URL = (__ENV.BASE_URL || 'http://127.0.0.1:8080').replace(/\/+$/, '');
export const WS_URL = `${BASE_URL.replace(/^http/, 'ws')}/ws/connect`;

// Empty where the hub asks for none (AUTH_REQUIRED=false).
const token = __ENV.TOKEN || '';
const key = __ENV.HUB_API_KEY || '';

export const deliveryLatency = new Trend('delivery_latency', true);
export const deliveries = new Counter('deliveries');
export const gaps = new Counter('gaps');
export const joined = new Rate('joined');
export const published = new Rate('published');

/** A positive number from the environment, or what it is by default. */
export function number(name, fallback) {
  const value = Number(__ENV[name] || fallback);
  if (!(value > 0)) throw new Error(`${name} must be a positive number`);
  return value;
}

export const wsParams = token ? { headers: { Authorization: `Bearer ${token}` } } : {};

const httpParams = {
  headers: Object.assign({ 'Content-Type': 'application/json' }, key ? { Authorization: `Bearer ${key}` } : {}),
  tags: { name: '/hub/publish' },
};

/** Publishes a stamped payload of about `bytes` bytes; true when the hub took it. */
export function publish(channel, bytes) {
  const data = { t: Date.now(), p: 'x'.repeat(Math.max(0, bytes - 30)) };
  const answer = http.post(`${BASE_URL}/hub/publish`, JSON.stringify({ channel, data }), httpParams);
  const taken = answer.status === 200;
  published.add(taken);
  return taken;
}

/** Books a message from the hub; returns it parsed. */
export function receive(text) {
  const message = JSON.parse(text);
  if (message.type === 'publication' && message.data && message.data.t) {
    deliveryLatency.add(Date.now() - message.data.t);
    deliveries.add(1);
  } else if (message.type === 'gap') {
    gaps.add(1);
  }
  return message;
}
