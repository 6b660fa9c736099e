/** Decides how thousands of connections are opened that say nothing: some at a time, and all are kept. */
import WebSocket from "ws"

const AT_A_TIME = 50

const [url = "", count = "0"] = process.argv.slice(2)
let left = Number(count)
let open = 0
/** Each stands for the one before it, whether that was let in or not. */
const next = (): void => {
  if (left-- <= 0) return
  const socket = new WebSocket(url, { rejectUnauthorized: false, perMessageDeflate: true })
  socket.on("open", () => {
    open++
    next()
  })
  socket.on("error", () => next())
}
for (let i = 0; i < AT_A_TIME; i++) next()
const looking = setInterval(() => {
  if (left > -AT_A_TIME) return
  clearInterval(looking)
  process.send!(open)
}, 200)
// The connections keep the process, and it ends with its parent.
process.on("disconnect", () => process.exit(0))
