/** Decides how the library under HTTP and WebSocket is loaded: here alone, and after what it is told before. */
import "./headLimit.ts"

export * from "uWebSockets.js"
