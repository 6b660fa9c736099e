import { assert, describe, it } from "@effect/vitest"
import { addressOf, type ClientFields, ClientLog, LINE_BURST, peerOf } from "../../src/http/clientLog.ts"

const make = () => {
  const lines: Array<string> = []
  const said: Array<ClientFields> = []
  let time = 0
  const log = new ClientLog(
    (line, fields) => {
      lines.push(line)
      said.push(fields)
    },
    () => time
  )
  return {
    lines,
    said,
    log,
    pass: (ms: number) => {
      time += ms
    }
  }
}

describe("the log of clients", () => {
  it("says who and why, and shows what is foreign escaped and cut", () => {
    const { lines, said, log } = make()
    log.tell("ended", "10.0.0.7", "too many messages")
    assert.deepStrictEqual(said, [{ event: "ended", address: "10.0.0.7" }])
    log.tell("bad_input", "10.0.0.7", `input: got "\u001b[2J${"x".repeat(2000)}"`)
    assert.strictEqual(lines[0], "client 10.0.0.7 ended: too many messages")
    assert.isTrue(lines[1]!.startsWith('client 10.0.0.7 bad input: input: got "\\u001b[2Jxxx'), lines[1])
    assert.isBelow(lines[1]!.length, 1_100)
  })

  it("says what is known of it in fields beside the text, and who showed which key in both", () => {
    const { lines, said, log } = make()
    log.tell("ended", "10.0.0.7", "1008 the API key was revoked", {
      code: 1008,
      reason: "key",
      path: "/ws",
      key: "desk"
    })
    log.tell("refused", "10.0.0.7", "GET …", {
      status: 403,
      reason: "host",
      path: `/\u001b[2J${"x".repeat(2000)}`,
      key: undefined
    })
    assert.strictEqual(lines[0], "client 10.0.0.7 (key desk) ended: 1008 the API key was revoked")
    const { path, ...refused } = said[1] as ClientFields & { readonly path: string }
    assert.deepStrictEqual(
      [said[0], refused],
      [
        { event: "ended", address: "10.0.0.7", code: 1008, reason: "key", path: "/ws", key: "desk" },
        { event: "refused", address: "10.0.0.7", status: 403, reason: "host" }
      ]
    )
    assert.isTrue(path.startsWith("/\\u001b[2Jxxx"), path)
    assert.isBelow(path.length, 250)
  })

  it("says few lines of a flood, how many it left out, and those of another kind all the same", () => {
    const { lines, log, pass } = make()
    for (let i = 0; i < 100_000; i++) log.tell("refused", "10.0.0.7", "full")
    assert.strictEqual(lines.length, LINE_BURST)
    log.tell("ended", "10.0.0.8", "too many messages")
    assert.strictEqual(lines.length, LINE_BURST + 1)
    pass(10_000)
    log.tell("refused", "10.0.0.9", "full")
    assert.deepStrictEqual(lines.slice(-2), [
      `clients refused: ${100_000 - LINE_BURST} more without a line`,
      "client 10.0.0.9 refused: full"
    ])
    for (let i = 0; i < 5; i++) log.tell("refused", "10.0.0.9", "full")
    log.close()
    assert.strictEqual(lines.at(-1), "clients refused: 4 more without a line")
  })
})

describe("a peer", () => {
  const text = (address: string) => new TextEncoder().encode(address).buffer as ArrayBuffer

  it("is its IPv4 address, also over IPv6, or its network of 64 bits", () => {
    assert.strictEqual(addressOf(text("127.0.0.1")), "127.0.0.1")
    assert.strictEqual(addressOf(text("0000:0000:0000:0000:0000:ffff:7f00:0001")), "127.0.0.1")
    assert.strictEqual(peerOf("127.0.0.1"), "127.0.0.1")
    const one = peerOf("2001:0db8:0000:0001:aaaa:bbbb:cccc:dddd")
    assert.strictEqual(one, "2001:0db8:0000:0001::/64")
    assert.strictEqual(peerOf("2001:0db8:0000:0001:1111:2222:3333:4444"), one)
  })
})
