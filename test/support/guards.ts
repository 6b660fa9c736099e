/**
 * Decides what keeps a test that takes long by its nature from hanging a run: one that starts, stops or kills real
 * processes again and again. Six times what the longest of them takes where nothing else runs; it bounds no speed.
 */
export const LONG_MS = 300_000
