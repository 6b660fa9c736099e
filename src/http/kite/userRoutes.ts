/**
 * Decides what stands in for a broker's account: a session whose token is the one that was brought, a profile, margins of
 * nothing, empty lists of orders and holdings, and no order taken.
 */
import { Effect } from "effect"
import { showGiven } from "../../schema/Explain.ts"
import { kiteStamp } from "../../schema/kite/asked.ts"
import { BAD_TOKEN, badInput, refused, success } from "./answers.ts"
import type { Asked, Gateway, Route } from "./Gateway.ts"
import type { Allowance } from "./Visitors.ts"

const USER = {
  user_id: "MDP001",
  user_type: "individual",
  email: "",
  user_name: "Market Data Platform",
  user_shortname: "MDP",
  broker: "ZERODHA",
  products: ["CNC", "NRML", "MIS", "BO", "CO"],
  order_types: ["MARKET", "LIMIT", "SL", "SL-M"],
  avatar_url: null,
  meta: { demat_consent: "physical" }
}

const NO_MARGIN = {
  enabled: true,
  net: 0,
  available: { adhoc_margin: 0, cash: 0, opening_balance: 0, live_balance: 0, collateral: 0, intraday_payin: 0 },
  utilised: {
    debits: 0,
    exposure: 0,
    m2m_realised: 0,
    m2m_unrealised: 0,
    option_premium: 0,
    payout: 0,
    span: 0,
    holding_sales: 0,
    turnover: 0,
    liquid_collateral: 0,
    stock_collateral: 0,
    delivery: 0
  }
}

const json = (value: unknown) => success(JSON.stringify(value))

const profile = (gateway: Gateway) => ({ ...USER, exchanges: gateway.instruments.exchanges() })

/** The token that somebody brings is the one he gets: there is no login here. */
const session =
  (field: "request_token" | "refresh_token") =>
  ({ form, head }: Asked, gateway: Gateway) => {
    const { address, peer } = head
    const [apiKey, brought] = [form.get("api_key") ?? "", form.get(field) ?? ""]
    if (apiKey === "") return badInput("Missing `api_key`")
    if (brought === "")
      return badInput(`Missing \`${field}\`: it is your API key where those are asked for, else any text`)
    if (!/^[0-9a-f]{64}$/i.test(form.get("checksum") ?? "")) {
      return badInput(
        "Invalid `checksum`: expected the SHA-256 of api_key, request_token and api_secret in hexadecimal"
      )
    }
    const visitor = gateway.visitors.enter(apiKey, brought, address, peer)
    if ("error_type" in visitor) {
      const isToken = visitor.message === BAD_TOKEN
      return Effect.fail(isToken ? refused("TokenException", "Token is invalid or has expired.") : visitor)
    }
    return Effect.succeed(
      json({
        ...profile(gateway),
        api_key: apiKey,
        access_token: brought,
        public_token: "",
        refresh_token: brought,
        enctoken: "",
        silo: "",
        login_time: kiteStamp(Math.floor(gateway.now() / 1_000_000))
      })
    )
  }

const given =
  (value: unknown): Route["answer"] =>
  () =>
    Effect.succeed(json(value))
const get = (path: string, answer: Route["answer"], allowance: Allowance = "other"): Route => ({
  method: "GET",
  path,
  allowance,
  answer
})

const marginOf: Route["answer"] = ({ path }) =>
  path.segment === "equity" || path.segment === "commodity"
    ? Effect.succeed(json(NO_MARGIN))
    : badInput(`Invalid \`segment\`: expected equity or commodity, got ${showGiven(path.segment)}`)

/** Whatever would change something at a broker. */
const writes = (["POST", "PUT", "DELETE"] as const).flatMap((method) =>
  ["/orders", "/portfolio", "/gtt", "/mf", "/margins", "/charges", "/alerts"].map(
    (path): Route => ({
      method,
      path: `${path}/*`,
      allowance: "other",
      answer: () => badInput("this is market data only: no order is taken, and no account is kept")
    })
  )
)

export const userRoutes: ReadonlyArray<Route> = [
  { method: "POST", path: "/session/token", allowance: "other", isOpen: true, answer: session("request_token") },
  {
    method: "POST",
    path: "/session/refresh_token",
    allowance: "other",
    isOpen: true,
    answer: session("refresh_token")
  },
  // The token stays what it was: API keys end where they are kept.
  { method: "DELETE", path: "/session/token", allowance: "other", answer: given(true) },
  get("/user/profile", (_, gateway) => Effect.succeed(json(profile(gateway)))),
  get("/user/margins", given({ equity: NO_MARGIN, commodity: NO_MARGIN })),
  get("/user/margins/{segment}", marginOf),
  get("/orders", given([])),
  get("/orders/*", given([])),
  get("/trades", given([])),
  get("/portfolio/positions", given({ net: [], day: [] })),
  get("/portfolio/holdings", given([])),
  get("/portfolio/holdings/*", given([])),
  get("/gtt/triggers", given([])),
  get("/mf/*", given([])),
  get("/alerts/*", given([])),
  ...writes
]
