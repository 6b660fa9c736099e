/** Decides how a soak run says what it found: figures as they come, then each claim with what it was measured at. */
export class Report {
  readonly #started = Date.now()
  failures = 0

  /** What happens just now. */
  tell(line: string): void {
    process.stdout.write(`  ${((Date.now() - this.#started) / 1000).toFixed(1).padStart(6)} s  ${line}\n`)
  }

  /** Columns, right-aligned; the first row is their heads. */
  table(rows: ReadonlyArray<ReadonlyArray<string>>): void {
    const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
    for (const row of rows) {
      process.stdout.write(`    ${row.map((cell, column) => cell.padStart(widths[column]!)).join("   ")}\n`)
    }
  }

  check(claim: string, holds: boolean, measured: string, problems: ReadonlyArray<string> = []): void {
    process.stdout.write(`  ${holds ? "ok    " : "FAILED"} ${claim}: ${measured}\n`)
    for (const problem of problems) process.stdout.write(`         ${problem}\n`)
    if (!holds) this.failures++
  }
}

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
