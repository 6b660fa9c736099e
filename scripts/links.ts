/** Decides what counts as a link of a page to another file of the project. */

const LINK = /\]\(([^)\s]+)\)/g
const ELSEWHERE = /^([a-z][a-z0-9+.-]*:|#)/i

/** The files that a Markdown page leads to, relative to it, without the place in them. */
export const linksOf = (page: string): ReadonlyArray<string> =>
  [...page.matchAll(LINK)]
    .map(([, target]) => target!)
    .filter((target) => !ELSEWHERE.test(target))
    .map((target) => target.replace(/#.*$/, ""))
