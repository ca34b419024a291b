// One WebSocket subscriber: joins a channel, books what it receives, leaves when its time is over.
import { WebSocket } from 'k6/websockets';
import { WS_URL, joined, receive, wsParams } from './hub.js';

/** Subscribes to `channel` for `seconds`; `onJoined` is called once, with the milliseconds that joining took. */
export function subscribe(channel, seconds, onJoined) {
  const began = Date.now();
  const socket = new WebSocket(WS_URL, null, wsParams);
  let subscribed = false;
  const leave = setTimeout(() => socket.close(), seconds * 1000);
  socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', channel, id: 1 }));
  socket.onmessage = (event) => {
    if (receive(event.data).type !== 'subscribed' || subscribed) return;
    subscribed = true;
    joined.add(true);
    if (onJoined) onJoined(Date.now() - began);
  };
  socket.onclose = () => {
    clearTimeout(leave);
    if (!subscribed) joined.add(false);
  };
  return socket;
}
