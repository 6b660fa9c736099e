/** Decides how tests speak with a client's session in memory: what it says is done at once, and the peer reads when told. */
import { ClientSession, type SessionSettings } from "../../src/http/session.ts"
import { MESSAGES, Shares } from "../../src/http/shares.ts"
import type { LiveKey } from "../../src/layers/keys/ApiKeys.ts"
import type { Instrument } from "../../src/schema/Instrument.ts"
import type { Meaning } from "../../src/schema/Meaning.ts"
import type { Answer, Removal, ServerMessage } from "../../src/schema/Protocol.ts"
import type { Hub } from "../../src/streams/fanOut/Hub.ts"
import { FakeSocket } from "./hub.ts"
import { constant, lookups } from "./instruments.ts"
import { RuleChecker } from "./RuleChecker.ts"

const settings: SessionSettings = {
  MAX_CLIENT_TOKENS: 10_000,
  MAX_CLIENT_CAPACITY: 100_000,
  MAX_SUBSCRIPTIONS: 1_000_000
}

type Of<Type> = Extract<ServerMessage, { readonly type: Type }>

export class Conversation {
  readonly socket: FakeSocket
  readonly session: ClientSession
  readonly hub: Hub
  /** Why messages were refused. */
  readonly refused: Array<string> = []
  /** What was answered, whether the peer has read it or not. */
  readonly said: Array<ServerMessage> = []
  private seen = 0

  constructor(
    hub: Hub,
    options: {
      readonly fast?: boolean
      /** Bytes that the peer may have yet to read of what its socket takes. */
      readonly window?: number | undefined
      readonly checker?: RuleChecker
      readonly settings?: Partial<SessionSettings>
      readonly instruments?: ReadonlyArray<Instrument>
      /** Instead of instruments, where they have been others. */
      readonly meanings?: ReadonlyArray<Meaning>
      readonly shares?: Shares
      readonly key?: LiveKey
    } = {}
  ) {
    this.hub = hub
    this.socket = new FakeSocket({
      fast: options.fast ?? true,
      checker: options.checker ?? new RuleChecker({ keep: true }),
      ...(options.window === undefined ? {} : { window: options.window })
    })
    const list = options.instruments ?? []
    const services = {
      hub,
      instruments: options.meanings === undefined ? constant(list) : lookups(options.meanings),
      settings: { ...settings, ...options.settings },
      // A clock that stands still: what is asked for is done to its end.
      shares: options.shares ?? new Shares(MESSAGES, () => 0),
      observer: { refused: (code: string, text: string) => this.refused.push(`${code} ${text}`) }
    }
    this.session = new ClientSession(services, this.socket, options.key)
    const { client } = this.session
    const say = client.say.bind(client)
    client.say = (text) => {
      this.said.push(JSON.parse(text))
      say(text)
    }
  }

  get client() {
    return this.session.client
  }

  get checker(): RuleChecker {
    return this.socket.checker
  }

  send(message: object): void {
    const bytes = new TextEncoder().encode(JSON.stringify(message))
    this.session.message(bytes.buffer, false)
  }

  get messages(): ReadonlyArray<ServerMessage> {
    return this.socket.messages() as unknown as ReadonlyArray<ServerMessage>
  }

  /** What was sent since this was last asked. */
  *fresh(): Generator<ServerMessage> {
    const { broken, frames } = this.socket
    if (broken !== undefined) throw broken
    while (this.seen < frames.length) yield* [JSON.parse(frames[this.seen++]!) as ServerMessage].flat()
  }

  /** What was sent of one type. */
  all<Type extends ServerMessage["type"]>(type: Type): ReadonlyArray<Of<Type>> {
    return this.messages.filter((message): message is Of<Type> => message.type === type)
  }

  /** The peer reads so many bytes. */
  read(bytes: number): void {
    this.socket.read(bytes)
    this.client.flush()
  }

  /** The answer to the last subscribe. */
  get answers(): ReadonlyArray<Answer> {
    const said = this.said.at(-1)
    if (said?.type !== "subscribed") throw new Error(`not an answer to a subscribe: ${JSON.stringify(said)}`)
    return said.tokens
  }

  /** The answer to the last unsubscribe. */
  get left(): { readonly tokens: ReadonlyArray<Removal>; readonly held: ReadonlyArray<number> } {
    const said = this.said.at(-1)
    if (said?.type !== "unsubscribed") throw new Error(`not an answer to an unsubscribe: ${JSON.stringify(said)}`)
    return said
  }
}
