/** Decides where a value stands among ascending ones. */

/** The first index in an ascending column whose value is at least `wanted`. */
export const lowerBound = (column: ArrayLike<number>, wanted: number): number => {
  let low = 0
  let high = column.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (column[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}
