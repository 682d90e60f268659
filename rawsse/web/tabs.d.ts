/** Bounds: the longest wait for a leader (ms), the runs of one connection, what waits unread in a tab (bytes). */
export const TAB_LIMITS: Readonly<{ openMs: number; maxRuns: number; maxUnreadBytes: number }>;
/** A `fetch` for `streamChat`: a run of the relay is read over one connection with those of the other tabs. */
export function sharedFetch(url: RequestInfo | URL, init?: RequestInit): Promise<Response>;
