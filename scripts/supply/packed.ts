/** Decides whether the two files that go with the package say all that ships: by name, version and an allowed licence. */
import { isAllowed, keyOf, type Project } from "./shipped.ts"

interface Licence {
  readonly expression?: string
  readonly license?: { readonly id?: string }
}
interface Component {
  readonly "bom-ref": string
  readonly licenses?: ReadonlyArray<Licence>
  readonly components?: ReadonlyArray<Component>
}

const wrongLicence = ({ licenses = [], ...component }: Component): ReadonlyArray<string> => {
  const named = licenses.map(({ expression, license }) => expression ?? license?.id ?? "unknown")
  const wrong = named.length === 0 || !named.every(isAllowed) ? [`${component["bom-ref"]}: licence ${named}`] : []
  return [...wrong, ...(component.components ?? []).flatMap(wrongLicence)]
}

/** What is missing or wrong in the two files' texts, a line each. */
export const untold = (
  { shipped }: Pick<Project, "shipped">,
  sbom: string,
  licences: string
): ReadonlyArray<string> => {
  const { components } = JSON.parse(sbom) as { readonly components: ReadonlyArray<Component> }
  const listed = new Set(components.map((component) => component["bom-ref"]))
  const lines = licences.split("\n")
  return [
    ...components.flatMap(wrongLicence),
    ...shipped.flatMap((one) => {
      // Once in the list, once above its licence's text.
      const row = `${one.name} ${one.version}: ${one.licence}`
      return [
        ...(listed.has(keyOf(one)) ? [] : [`${keyOf(one)}: not in the bill of materials`]),
        ...(lines.filter((line) => line === row).length === 2 ? [] : [`${keyOf(one)}: no text of its licence`])
      ]
    })
  ]
}
