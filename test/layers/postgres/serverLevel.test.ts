import { assert, describe, it } from "@effect/vitest"
import { chooseLevel, type Level, type ServerFound } from "../../../src/layers/postgres/serverLevel.ts"
import { StartError } from "../../../src/schema/Errors.ts"

const server = (given: Partial<ServerFound> = {}): ServerFound => ({
  number: 150_020,
  version: "15.20",
  timescale: undefined,
  available: undefined,
  ...given
})
const timescale = (license: string | undefined, version = "2.28.3") =>
  server({ timescale: { version, license }, available: version })
const community = timescale("timescale")
const apache = timescale("apache")

const refusal = (found: ServerFound, setUpAs?: Level): string => {
  try {
    chooseLevel(found, setUpAs)
  } catch (error) {
    assert.instanceOf(error, StartError)
    return (error as StartError).message
  }
  return assert.fail("not refused")
}

describe("the layout of a new database", () => {
  it("is what the server has, and one line says so", () => {
    assert.deepStrictEqual(chooseLevel(community, undefined), {
      level: "community",
      says: "TimescaleDB 2.28.3 Community on PostgreSQL 15.20: a hypertable, bars as continuous aggregates, columnstore after 3 days"
    })
    assert.deepStrictEqual(chooseLevel(apache, undefined), {
      level: "apache",
      says: "TimescaleDB 2.28.3 Apache on PostgreSQL 15.20: a hypertable, bars in a table; timescaledb.license is apache: no continuous aggregates, no columnstore"
    })
    assert.deepStrictEqual(chooseLevel(server(), undefined), {
      level: "plain",
      says: "PostgreSQL 15.20: a partition a day, bars in a table"
    })
  })

  it("is plain where TimescaleDB is available but could not be created, or too old, and the line says which", () => {
    assert.deepStrictEqual(chooseLevel(server({ available: "2.28.3" }), undefined), {
      level: "plain",
      says: "PostgreSQL 15.20: a partition a day, bars in a table; TimescaleDB 2.28.3 is available but could not be created in this database (CREATE EXTENSION timescaledb), and is not used"
    })
    for (const version of ["1.7.5", "2.9.0", "2.17.2"]) {
      assert.deepStrictEqual(chooseLevel(timescale("timescale", version), undefined), {
        level: "plain",
        says: `TimescaleDB ${version} Community on PostgreSQL 15.20: a partition a day, bars in a table; TimescaleDB ${version} is older than 2.18, and is not used`
      })
    }
    for (const version of ["2.18.0", "3.0.0-dev"]) {
      assert.strictEqual(chooseLevel(timescale("timescale", version), undefined).level, "community")
    }
  })

  it("is refused to a server that is too old, or that does not load the extension its database has", () => {
    assert.strictEqual(
      refusal(server({ number: 130_014, version: "13.14" })),
      "DATABASE_URL: PostgreSQL 14 or later is needed, this is 13.14"
    )
    assert.strictEqual(
      refusal(timescale(undefined)),
      "DATABASE_URL: the database has the extension TimescaleDB 2.28.3, but the server does not load it (shared_preload_libraries)"
    )
  })
})

describe("the layout of a database that was set up before", () => {
  it("stays as it is where the server can carry it, and one line says what a new one would have", () => {
    for (const level of ["community", "apache", "plain"] as const) {
      const found = { community, apache, plain: server() }[level]
      assert.deepStrictEqual(chooseLevel(found, level), chooseLevel(found, undefined))
    }
    assert.deepStrictEqual(chooseLevel(community, "plain"), {
      level: "plain",
      says: "TimescaleDB 2.28.3 Community on PostgreSQL 15.20: a partition a day, bars in a table, as the database was set up; on this server a new one would have a hypertable, bars as continuous aggregates, columnstore after 3 days"
    })
    assert.strictEqual(chooseLevel(apache, "plain").level, "plain")
    assert.deepStrictEqual(chooseLevel(community, "apache"), {
      level: "apache",
      says: "TimescaleDB 2.28.3 Community on PostgreSQL 15.20: a hypertable, bars in a table, as the database was set up; on this server a new one would have a hypertable, bars as continuous aggregates, columnstore after 3 days"
    })
  })

  it("is refused where the server lacks what it needs", () => {
    assert.strictEqual(
      refusal(apache, "community"),
      "DATABASE_URL: the database was set up with a hypertable, bars as continuous aggregates, columnstore after 3 days, which this server (TimescaleDB 2.28.3 Apache on PostgreSQL 15.20) cannot go on with: timescaledb.license is apache: no continuous aggregates, no columnstore"
    )
    assert.strictEqual(
      refusal(server(), "apache"),
      "DATABASE_URL: the database was set up with a hypertable, bars in a table, which this server (PostgreSQL 15.20) cannot go on with"
    )
    assert.match(
      refusal(server({ available: "2.28.3" }), "community"),
      /TimescaleDB 2.28.3 is available but could not be created/
    )
  })
})
