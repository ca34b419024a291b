/**
 * Client of Fanfare's plain protocol over WebSocket, in browsers and in Node.
 *
 * ```js
 * import { Fanfare } from '/fanfare.js';
 * const hub = new Fanfare('/ws/connect', { getToken: () => fetch('/token').then((r) => r.text()) });
 * const news = hub.subscribe('news', {
 *   onPublication: ({ data, offset }) => show(data),
 *   onGap: () => reload(),                  // something was missed for good: fetch the state anew
 * });
 * await hub.publish('news', { title: 'Hello' });
 * ```
 *
 * It connects at once, and again whenever the connection is lost, with jittered exponential backoff. Each
 * subscription then resumes at its position: publications come in order and exactly once, or `onGap` says
 * that some are gone. What a listener throws stops nothing here and is reported like any uncaught
 * error, which ends a Node process that has no listener for `uncaughtException`.
 */

/** Where a reader stands in a channel's stream. Offsets count from 1 within an epoch. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface Publication<T = unknown> {
  type: 'publication';
  channel: string;
  data: T;
  /** Absent on channels without history: these can be neither recovered nor told from duplicates. */
  offset?: number;
  /** On the first publication of a new epoch only. */
  epoch?: string;
  /** Present when a client published it. */
  from?: { client: string; user: string };
}

/** Publications were missed and do not come any more. Without a position on channels without history. */
export interface Gap extends Partial<Position> {
  channel: string;
  /** How many, or null when nobody can count them. */
  dropped: number | null;
}

/** Without a position on channels without history. */
export interface Subscribed extends Partial<Position> {
  channel: string;
  /** Only when a position was asked for. When true, `offset` is the one asked, and what followed it comes now. */
  recovered?: boolean;
}

/** Somebody came to a channel or left it. */
export interface Member {
  type: 'join' | 'leave';
  channel: string;
  client: string;
  user: string;
  info?: unknown;
}

export interface SubscribeOptions<T = unknown> {
  onPublication?: (publication: Publication<T>) => void;
  onGap?: (gap: Gap) => void;
  /** After the first subscribing and after each reconnection, on channels that the token subscribed too. */
  onSubscribed?: (answer: Subscribed) => void;
  /** The hub refused the subscription or ended it. It is not tried again. */
  onUnsubscribed?: (why: FanfareError | { channel: string; code?: number | string; reason?: string }) => void;
  onJoin?: (member: Member) => void;
  onLeave?: (member: Member) => void;
  /** Who is there now, in the place of all before: joins or leaves may have been missed. Only with `presence`. */
  onPresence?: (present: PresenceState) => void;
  /** Asks for joins and leaves of others. */
  presence?: boolean;
  /**
   * `true` (default): resume where the connection was cut. A position: also start from there, e.g. from the
   * one a page was rendered at. `false`: live publications only.
   */
  recover?: boolean | Position;
}

export interface Subscription {
  readonly channel: string;
  /** The position of the last publication seen; undefined before the first `onSubscribed`. */
  readonly position?: Position;
  /** Whether publications flow. */
  readonly live?: boolean;
  unsubscribe(): void;
}

export interface Published {
  channel: string;
  /** Both absent on channels without history. */
  epoch?: string;
  offset?: number;
}

export interface History<T = unknown> extends Position {
  channel: string;
  publications: { data: T; offset: number; from?: Publication['from'] }[];
  /** The answer was cut: ask on with `since`. */
  more?: boolean;
}

export interface PresenceState {
  channel: string;
  clients: Record<string, { user: string; info?: unknown }>;
  count: number;
  users: number;
  /** Not all members fitted. */
  more?: boolean;
}

/** `connecting` while waiting to reconnect too; `closed` until `connect()`. */
export type State = 'connecting' | 'connected' | 'closed';

export interface StateChange {
  state: State;
  /** The close code, when a connection was lost: 1006 when there was none, 4004 when the hub fell silent. */
  code?: number;
  reason?: string;
  /** Milliseconds to the next attempt. Without meaning when `closed`. */
  delay?: number;
}

/**
 * The hub's error answer, or `disconnected` (whether the command took effect is unknown), or `too_many_commands`
 * (1,000 are not answered yet), or `bad_request` at once for what cannot be JSON.
 */
export interface FanfareError extends Error {
  code: string;
}

export interface FanfareOptions {
  /** A JWT, sent as a subprotocol entry, so it stands in no URL and no access log. */
  token?: string;
  /**
   * Asked for a token when there is none, when the old one expired or may have been refused, and at four
   * fifths of its life, to refresh it on the open connection. A rejection is tried again, backing off.
   */
  getToken?: () => string | Promise<string>;
  /** Milliseconds: the first reconnection comes within this time, later ones within twice the time before. */
  minDelay?: number;
  /** Milliseconds: the most that a reconnection waits (twice as long after 1011 and 1013). */
  maxDelay?: number;
  /** For runtimes without a global one, as Node before version 22: the class of the package `ws`. */
  WebSocket?: new (url: URL, protocols: string[]) => any;
}

export class Fanfare {
  /** @param url Of `/ws/connect`, absolute or relative to the page, `http:` or `ws:`. */
  constructor(url?: string | URL, options?: FanfareOptions);

  readonly state: State;
  /** The hub's name for this connection, another one after each reconnection. */
  readonly clientId?: string;

  /**
   * One subscription a channel; a second one throws `already_subscribed`. A channel that the token (or the
   * back end) subscribed needs none: its publications reach `on('publication')` alone, until it gets one.
   */
  subscribe<T = unknown>(channel: string, options?: SubscribeOptions<T>): Subscription;

  /** Waits for the connection if need be, as the next two. Rejects with a {@link FanfareError}. */
  publish(channel: string, data: unknown, options?: { key?: string }): Promise<Published>;
  history<T = unknown>(channel: string, options?: { limit?: number; since?: Position }): Promise<History<T>>;
  presence(channel: string): Promise<PresenceState>;

  /** Listens to the state, or to every message of a type that answers no command. Returns what stops it. */
  on(event: 'state', listener: (change: StateChange) => void): () => void;
  on(event: 'publication', listener: (publication: Publication) => void): () => void;
  on(event: 'gap', listener: (gap: Gap) => void): () => void;
  on(event: 'join' | 'leave', listener: (member: Member) => void): () => void;
  on(event: 'presence', listener: (present: PresenceState) => void): () => void;
  on(event: string, listener: (message: any) => void): () => void;

  /**
   * Ends the connection and rejects what is pending. Subscriptions and their positions stay, and `connect()`
   * resumes them.
   */
  close(): void;

  /** Connects after `close()` or a final close code, or ends the wait: `addEventListener('online', hub.connect)`. */
  connect(): Promise<void>;
}
