// A React hook for the generated client. Copy it; it needs React (16.8 or newer) alone.
//
//   import sse from "/_sse/client.js";
//
//   function Room({ room }) {
//     const [messages, setMessages] = useState([]);
//     const { state } = useSse(() => sse.room({ room }), [room], {
//       message: (data, event) => setMessages((before) => [...before, data]),
//       onGap: () => setMessages([]),
//     });
//     ...
//   }
import { useEffect, useLayoutEffect, useRef, useState } from "react";

const BEFORE = Object.freeze({
  state: "connecting",
  attempt: 0,
  retryInMs: null,
  error: null,
});

/**
 * Follows a stream for as long as the component is there.
 *
 * @param {() => object} open Makes the stream. It is called anew when one of `deps` has
 *   changed; the stream before it is closed.
 * @param {readonly unknown[]} deps What `open` depends on, as for `useEffect`.
 * @param {object} handlers A function `(data, event)` for each type of event, and
 *   `onGap(gap)`, `onError(error)`. They may be others each time: the newest are called.
 * @returns {object} The stream's state: `state`, `attempt`, `retryInMs`, `error`.
 */
export function useSse(open, deps, handlers) {
  const [info, setInfo] = useState(BEFORE);
  const newest = useRef(handlers);
  // With the rendering, not some time after it: what is called was rendered last.
  useLayoutEffect(() => {
    newest.current = handlers;
  });
  useEffect(() => {
    const stream = open();
    const tell = (name, ...args) => {
      // An event may be called `constructor`.
      if (Object.hasOwn(newest.current, name)) newest.current[name](...args);
    };
    stream.onAny((event) => tell(event.type, event.data, event));
    stream.onGap((gap) => tell("onGap", gap));
    stream.onError((error) => tell("onError", error));
    stream.onState(setInfo);
    setInfo(stream.info);
    // In StrictMode React takes the first one away at once: then nothing was asked yet.
    return () => stream.close();
  }, deps);
  return info;
}
