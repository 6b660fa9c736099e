/**
 * Decides how long a request's head may be, its line and headers together: a thousand names of a Kite client's quote fit
 * in. The library reads it when it is loaded, for every port of the process; what is longer it answers itself, with 431.
 */
export const MAX_HEAD_BYTES = 65_536

process.env.UWS_HTTP_MAX_HEADERS_SIZE = String(MAX_HEAD_BYTES)
