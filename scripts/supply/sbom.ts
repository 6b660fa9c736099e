/**
 * Decides what sbom.cdx.json says: a CycloneDX 1.6 bill of materials of all that ships, made from package-lock.json alone,
 * so that the same lock file makes the same bytes on every machine. For that it has no time and no serial number.
 * The format: https://cyclonedx.org/docs/1.6/json/
 */
import { keyOf, type Part, type Project, type Shipped } from "./shipped.ts"

export const SBOM = "sbom.cdx.json"

/** `pkg:npm/%40scope/name@version`. */
const purlOf = ({ name, version }: Pick<Shipped, "name" | "version">): string =>
  `pkg:npm/${name.replace(/^@/, "%40")}@${version}`

const licencesOf = (licence: string) =>
  /[\s()]/.test(licence) ? [{ expression: licence }] : [{ license: { id: licence } }]

const partOf = (whose: Shipped, { name, version, licence, purl, cpe }: Part) => ({
  type: "library",
  "bom-ref": `${keyOf(whose)}#${name}`,
  name,
  version,
  ...(cpe === undefined ? {} : { cpe }),
  licenses: licencesOf(licence),
  purl
})

const componentOf = (one: Shipped) => {
  const slash = one.name.startsWith("@") ? one.name.indexOf("/") : -1
  return {
    type: "library",
    "bom-ref": keyOf(one),
    ...(slash < 0 ? {} : { group: one.name.slice(0, slash) }),
    name: one.name.slice(slash + 1),
    version: one.version,
    scope: one.isOptional ? "optional" : "required",
    hashes: [
      { alg: "SHA-512", content: Buffer.from(one.integrity!.slice("sha512-".length), "base64").toString("hex") }
    ],
    licenses: licencesOf(one.licence!),
    purl: purlOf(one),
    ...(one.parts.length === 0 ? {} : { components: one.parts.map((part) => partOf(one, part)) })
  }
}

export const sbomOf = (project: Project): string => {
  const bom = {
    $schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      lifecycles: [{ phase: "build" }],
      component: {
        type: "application",
        "bom-ref": keyOf(project),
        name: project.name,
        version: project.version,
        description: project.description,
        licenses: licencesOf(project.licence),
        purl: purlOf(project)
      }
    },
    components: project.shipped.map(componentOf),
    dependencies: [
      { ref: keyOf(project), dependsOn: project.needs },
      ...project.shipped.map((one) => ({ ref: keyOf(one), dependsOn: one.needs }))
    ]
  }
  return `${JSON.stringify(bom, null, 2)}\n`
}
