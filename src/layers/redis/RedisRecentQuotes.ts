/**
 * Decides how each instrument's latest quote is kept in Redis: a string of its JSON an instrument, gone some days after
 * its last quote. A batch is one script, which leaves a later one where it is.
 */
import { Duration, Effect, Layer } from "effect"
import { decodeQuote, encodeQuote, type Quote } from "../../schema/Quote.ts"
import { jsonName } from "../../schema/quotedOnce.ts"
import { latestOf, RecentQuotes } from "../../streams/ports/RecentQuotes.ts"
import { type Commands, RedisConnection, script } from "./connection.ts"
import { FlatArray } from "./messagePack.ts"

export interface RedisRecentQuotesOptions {
  /** How long a quote is kept after it was put. */
  readonly keep: Duration.Input
}

/** Quotes in one script, which holds up all others while it runs. */
const SCRIPT_QUOTES = 2048
/** Keys asked for in one command. */
const READ_KEYS = 1024
/** About what a quote's JSON with five levels a side takes, with its share of the rest. */
const QUOTE_BYTES = 1024

/**
 * ARGV: seconds to live, and of each quote its key, its JSON, stamp, offset and, as JSON, incarnation. What is there is
 * read from its own JSON, whose stamp stands at a fixed place and whose source ends it; what is none gives way.
 */
const PUT = script(`
local ttl = ARGV[1]
local batch = cmsgpack.unpack(ARGV[2])
for i = 1, #batch, 5 do
  local key, json = batch[i], batch[i + 1]
  local there = redis.pcall('GET', key)
  local isLater = true
  if type(there) == 'string' then
    local at = tonumber(string.match(there, '^{"instrument_token":%d+,"exchange_ts":(%d+)') or '-1')
    local stamp = tonumber(batch[i + 2])
    if at > stamp then isLater = false
    elseif at == stamp then
      local incarnation, offset = string.match(there, '"source":%[("[^"]*"),(%d+),%d+%]}$')
      isLater = incarnation ~= batch[i + 4] or tonumber(batch[i + 3]) > tonumber(offset)
    end
  end
  if isLater then redis.call('SET', key, json, 'EX', ttl) end
end
return 0
`)

const make = (options: RedisRecentQuotesOptions): Effect.Effect<RecentQuotes["Service"], never, RedisConnection> =>
  Effect.gen(function* () {
    const { ask, prefix } = yield* RedisConnection
    const seconds = String(Math.ceil(Duration.toSeconds(options.keep)))
    const keyOf = (token: number) => `${prefix}quote:${token}`

    const put = async ({ run }: Commands, quotes: ReadonlyArray<Quote>): Promise<void> => {
      const latest = [...latestOf(quotes).values()]
      for (let from = 0; from < latest.length; from += SCRIPT_QUOTES) {
        const part = latest.slice(from, from + SCRIPT_QUOTES)
        const packed = new FlatArray(part.length * QUOTE_BYTES)
        for (const quote of part) {
          const [incarnation, offset] = quote.source
          packed.ascii(keyOf(quote.instrument_token))
          packed.text(encodeQuote(quote))
          packed.ascii(String(quote.exchange_ts))
          packed.ascii(String(offset))
          packed.text(jsonName(incarnation))
        }
        await run(PUT, [], [seconds, packed.finish()])
      }
    }

    const latest = async ({ client }: Commands, tokens: ReadonlyArray<number>): Promise<ReadonlyMap<number, Quote>> => {
      const found = new Map<number, Quote>()
      for (let from = 0; from < tokens.length; from += READ_KEYS) {
        for (const text of await client.mgetBuffer(tokens.slice(from, from + READ_KEYS).map(keyOf))) {
          const quote = text === null ? undefined : decodeQuote(text)
          if (quote !== undefined) found.set(quote.instrument_token, quote)
        }
      }
      return found
    }

    return {
      put: (quotes) => (quotes.length === 0 ? Effect.void : ask("putQuotes", (commands) => put(commands, quotes))),
      latest: (tokens) =>
        tokens.length === 0 ? Effect.succeed(new Map()) : ask("latestQuotes", (commands) => latest(commands, tokens))
    }
  })

export const layer = (options: RedisRecentQuotesOptions): Layer.Layer<RecentQuotes, never, RedisConnection> =>
  Layer.effect(RecentQuotes, make(options))
