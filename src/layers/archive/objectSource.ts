/** Decides where the thread finds the bytes of an object: in a file, or with its owner, who reads them from afar. */
export type ObjectSource =
  | { readonly kind: "file"; readonly path: string; readonly size: number }
  | { readonly kind: "object"; readonly key: string; readonly size: number }

/** What an object is called where something is said of it. */
export const nameOf = (source: ObjectSource): string => (source.kind === "file" ? source.path : source.key)
