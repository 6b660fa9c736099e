/** Decides where the simulated market's chance comes from: a stream of numbers for each use, all from one seed. */

/** sfc32, seeded from a number and a name: each use has a stream of its own, so options do not shift one another's. */
export const randomOf = (seed: number, use: string): (() => number) => {
  let a = seed >>> 0
  let b = 0x9e3779b9
  let c = 0x243f6a88
  for (let i = 0; i < use.length; i++) b = Math.imul(b ^ use.charCodeAt(i), 0x01000193) >>> 0
  let counter = 1
  const next = () => {
    const t = (((a + b) >>> 0) + counter) >>> 0
    counter = (counter + 1) >>> 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) >>> 0
    c = ((c << 21) | (c >>> 11)) >>> 0
    c = (c + t) >>> 0
    return t / 4_294_967_296
  }
  for (let i = 0; i < 20; i++) next()
  return next
}

export const gaussianOf = (random: () => number): (() => number) => {
  let spare = Number.NaN
  return () => {
    if (!Number.isNaN(spare)) {
      const value = spare
      spare = Number.NaN
      return value
    }
    const radius = Math.sqrt(-2 * Math.log(1 - random()))
    const angle = 2 * Math.PI * random()
    spare = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }
}
