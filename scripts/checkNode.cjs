// Decides whether a checkout has a Node to run on: the one that came with it comes first on npm's path, so that here an
// older one is met only where none came. Plain old JavaScript on purpose: it is read by whatever Node is there. No
// install script, which npm would ask about wherever the package is installed.
"use strict"
const [major, minor] = process.versions.node.split(".").map(Number)

if (major < 22 || (major === 22 && minor < 22)) {
  console.error(
    `needs Node 22.22 or newer: this is ${process.versions.node}, and none comes along for ${process.platform}-${process.arch}`
  )
  process.exit(1)
}
