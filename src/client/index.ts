/** Decides what the package `market-data-platform/client` exports. It imports nothing: browsers and Node load it as it is. */

export type * from "./answers.ts"
export type { Reconnect } from "./backoff.ts"
export {
  type AsOfOptions,
  type CandleOptions,
  Client,
  type ConnectOptions,
  connect,
  type RangeOptions,
  type SearchOptions
} from "./Client.ts"
export {
  BufferFull,
  ClientClosed,
  ConnectionFailed,
  MarketDataError,
  MessageRefused,
  NetworkFailed,
  ReplayFailed,
  RequestFailed,
  RuleViolated,
  SubscriptionRefused,
  TimedOut,
  Unauthorized,
  Unsupported
} from "./errors.ts"
export type { Heartbeat, Key, LinkState, Socket, SocketConstructor } from "./Link.ts"
export type * from "./messages.ts"
export { Replay } from "./Replay.ts"
export type { RequestOptions } from "./Rest.ts"
export type { Events, FromOptions, Instruments, Source, StreamingOptions, SubscribeOptions } from "./Source.ts"
export type { Stream, Subscription, WhenFull } from "./Subscription.ts"
